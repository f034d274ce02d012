"""Figure 3: lower held-out loss goes with better probes, over the steps of a run and over sizes.

    python -m experiments.reproduce figure3 --scale=miniature --workdir=runs/miniature

Uses the runs and the config of Table 5, sizes S, M and L.  They are measured and probed while they train: after 131,
262, 524 and 1,000 thousand steps, as in the paper (whose report also has 65), or at four points in the miniature.  The
paper's figure shows probes on CIFAR-10; these probes are on the images of pretraining.  The paper speaks of validation
loss (2.0895, 2.0614, 2.0466 at the end, by its released code); this held-out loss is that of the test images.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import scales
from experiments.runs import measured_at
from experiments.table5_pretrain import get_config, pretraining
from experiments.tables import Row
from igpt_jax.report.curves import plot_curves

__all__ = ["TITLE", "draw", "get_config", "rows"]

TITLE = "Held-out loss and linear probe, over training"
SIZES = ("s", "m", "l")


def steps(scale: str) -> tuple[int, ...]:
    """The steps after which the runs are measured."""
    if scale == "paper":
        return 131_000, 262_000, 524_000, 1_000_000
    return tuple(scales.STEPS * quarter // 4 for quarter in (1, 2, 3, 4))


def rows(scale: str) -> list[Row]:
    """Two rows for each point of the figure: loss and accuracy."""
    all_rows = []
    for size in SIZES:
        job = pretraining(size, "ar", scale)
        for step in steps(scale):
            name, setting = f"iGPT-{size.upper()}", f"after {step:,} steps"
            nats, accuracy = measured_at(step, 0), measured_at(step, 1)
            all_rows.append(Row(name, setting, unit="nats/token", job=job, read=nats, key=f"{size}-{step}-nats"))
            all_rows.append(Row(name, setting, job=job, read=accuracy, key=f"{size}-{step}-probe"))
    return all_rows


def draw(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws one curve for each size, from the first measured step to the last."""
    measured = {row["key"]: row for row in rows if row["values"]}
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for key, row in measured.items():
        size, step, what = key.split("-")
        if what == "nats":
            probe = measured[f"{size}-{step}-probe"]
            curves.setdefault(row["name"], []).append((row["mean"], probe["mean"], probe["std"] or 0.0))
    plot_curves(path, TITLE, "test loss (nats per token; falls to the right)", "test accuracy (%)", curves, falls=True)
