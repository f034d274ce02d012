"""Figure 3: lower loss on held-out images goes with better probes, over the steps of a run and over sizes.

    python -m experiments.reproduce figure3 --scale=miniature --workdir=runs/miniature

The same runs as Table 5's, S, M and L, from the same config: they are measured and probed while they train, at the
paper's 131, 262, 524 and 1,000 thousand steps (the report also has 65), or at four points of the miniature.  The probes
read the images that were pretrained on, where the paper's figure shows those of CIFAR-10; held-out loss is that of the
test images, where the paper's is called validation loss (its released code: 2.0895, 2.0614, 2.0466 at the end).
"""

import pathlib
from collections.abc import Sequence

from experiments import scales
from experiments.runs import Result
from experiments.table5_pretrain import get_config, pretraining
from experiments.tables import Row
from igpt_jax.report.curves import plot_curves

__all__ = ["TITLE", "draw", "get_config", "rows"]

TITLE = "Held-out loss and linear probe, over training"
SIZES = ("s", "m", "l")


def steps(scale: str) -> tuple[int, ...]:
    """After which the runs are measured."""
    if scale == "paper":
        return 131_000, 262_000, 524_000, 1_000_000
    return tuple(scales.STEPS * quarter // 4 for quarter in (1, 2, 3, 4))


def rows(scale: str) -> list[Row]:
    """Two rows a point: loss and accuracy."""
    found = []
    for size in SIZES:
        run = pretraining(size, "ar", scale)
        for step in steps(scale):
            name, setting = f"iGPT-{size.upper()}", f"after {step:,} steps"
            nats, accuracy = _at(step, 0), _at(step, 1)
            found.append(Row(name, setting, unit="nats/token", run=run, read=nats, key=f"{size}-{step}-nats"))
            found.append(Row(name, setting, run=run, read=accuracy, key=f"{size}-{step}-probe"))
    return found


def _at(step, which):
    def read(result: Result) -> float:
        return result.checkpoints()[step][which]

    return read


def draw(path: pathlib.Path, rows: Sequence[dict]) -> None:
    """One curve a size, from the first measured step to the last."""
    found = {row["key"]: row for row in rows if row["values"]}
    curves = {}
    for key, row in found.items():
        size, step, what = key.split("-")
        if what == "nats":
            probe = found[f"{size}-{step}-probe"]
            curves.setdefault(row["name"], []).append((row["mean"], probe["mean"], probe["std"] or 0.0))
    plot_curves(path, TITLE, "test loss (nats per token; falls to the right)", "test accuracy (%)", curves, falls=True)
