"""Figure 2: linear probes of every layer of iGPT-L; the best layer is in the middle, 2.4 points above the last one.

    python -m experiments.reproduce figure2 --scale=miniature --workdir=runs/miniature

Uses the runs and the config of Table 1: CIFAR-10, CIFAR-100 and STL-10, or digits in the miniature.  The paper prints
no values of its curves, but says that "representations first improve as a function of depth, and then, starting around
the middle layer, begin to deteriorate until the penultimate layer" (section 4.1).
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from experiments import scales
from experiments.runs import Result
from experiments.table1_probe import DATA, get_config, probing
from experiments.table5_pretrain import pretraining
from experiments.tables import Row
from igpt_jax.report.curves import plot_curves

__all__ = ["TITLE", "draw", "get_config", "rows"]

TITLE = "Linear probe by layer of iGPT-L"
LAST_MINUS_BEST = -2.4  # points, on CIFAR-10


def rows(scale: str) -> list[Row]:
    """The accuracy of each layer, and how far the first and the last are below the layer chosen on held-out images."""
    layers = scales.shape("l", 32, scale).layers
    all_rows = []
    for name, data in DATA.items() if scale == "paper" else {"digits": scales.STANDS_FOR}.items():
        job = probing(pretraining("l", "ar", scale), data, scale)
        all_rows += [
            Row("iGPT-L", f"{name}, layer {layer}", job=job, read=of_layer(layer), key=f"{data}-{layer}")
            for layer in range(layers + 1)
        ]
        if data == scales.STANDS_FOR:
            for against, paper in ((layers, LAST_MINUS_BEST), (0, None)):
                setting = f"{name}, layer {against} minus the chosen one"
                read = minus_best(against)
                key = f"{'last' if against else 'first'}-minus-best"
                all_rows.append(Row("iGPT-L", setting, paper, unit="points", job=job, read=read, key=key))
    return all_rows


def of_layer(layer: int) -> Callable[[Result], float]:
    """Returns a function that reads a layer's accuracy."""

    def read(result: Result) -> float:
        probe = result.evaluation["probe"]
        return probe["layers"][probe["layer_numbers"].index(layer)]

    return read


def minus_best(layer: int) -> Callable[[Result], float]:
    """Returns a function that reads how far a layer is above the one that held-out images chose, in points."""
    return lambda result: of_layer(layer)(result) - result.evaluation["probe"]["accuracy"]


def draw(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws one curve for each data set, with the standard deviation over the seeds."""
    plot_layers(path, TITLE, rows, lambda row: row["setting"].split(",")[0])


def plot_layers(
    path: pathlib.Path, title: str, rows: Sequence[dict[str, Any]], curve: Callable[[dict[str, Any]], str]
) -> None:
    """Draws accuracy by layer, with the standard deviation over the seeds.

    Args:
      path: the file to write.
      title: of the figure.
      rows: from `tables.measure`; those of layers have keys that end with "-" and the layer.
      curve: the name of the curve that a row belongs to.
    """
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        layer = row["key"].rpartition("-")[2]
        if layer.isdecimal() and row["values"]:
            curves.setdefault(curve(row), []).append((int(layer), row["mean"], row["std"] or 0.0))
    plot_curves(path, title, "layer of the features", "test accuracy (%)", curves)
