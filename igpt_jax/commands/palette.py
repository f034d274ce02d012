"""Fits a run's palette and draws it."""

import pathlib

from igpt_jax.commands.run import Run
from igpt_jax.config import RunConfig
from igpt_jax.parallel.processes import is_first
from igpt_jax.report import plot_palette


def main(config: RunConfig, workdir: pathlib.Path, options) -> None:
    """Writes WORKDIR/palette.npy and WORKDIR/report/palette.png."""
    del options
    run = Run.open(config, workdir)
    if not is_first():
        return
    print(f"{workdir / 'palette.npy'}: {len(run.palette)} colours, hash {run.palette.hash}")
    draw_palette(run)


def draw_palette(run: Run) -> None:
    """Shows the colours, and test images beside their quantised selves, in report/palette.png."""
    plot_palette(run.workdir / "report" / "palette.png", run.palette, run.test.images[:12])
