"""Figure 2: what a linear probe reads from each layer of iGPT-L; the best is in the middle, the last 2.4 points below.

    python -m experiments.reproduce figure2 --scale=miniature --workdir=runs/miniature

The same runs as Table 1's, from the same config: CIFAR-10, CIFAR-100 and STL-10, or digits.  The paper prints no values
of the curves; "representations first improve as a function of depth, and then, starting around the middle layer, begin
to deteriorate until the penultimate layer" (section 4.1).
"""

import pathlib
from collections.abc import Sequence

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
    """Accuracy of each layer, and how much the last lies below the one that held-out images chose."""
    layers = scales.shape("l", 32, scale).layers
    found = []
    for name, data in DATA.items() if scale == "paper" else {"digits": scales.STANDS_FOR}.items():
        run = probing(pretraining("l", "ar", scale), data, scale)
        found += [
            Row("iGPT-L", f"{name}, layer {layer}", run=run, read=_of_layer(layer), key=f"{data}-{layer}")
            for layer in range(layers + 1)
        ]
        if data == scales.STANDS_FOR:
            for against, paper in ((layers, LAST_MINUS_BEST), (0, None)):
                setting = f"{name}, layer {against} minus the chosen one"
                read = _minus_best(against)
                key = f"{'last' if against else 'first'}-minus-best"
                found.append(Row("iGPT-L", setting, paper, unit="points", run=run, read=read, key=key))
    return found


def _of_layer(layer):
    def read(result: Result) -> float:
        probe = result.evaluation["probe"]
        return probe["layers"][probe["layer_numbers"].index(layer)]

    return read


def _minus_best(layer):
    return lambda result: _of_layer(layer)(result) - result.evaluation["probe"]["accuracy"]


def draw(path: pathlib.Path, rows: Sequence[dict]) -> None:
    """One curve a data set, with the standard deviation over the seeds."""
    curves = {}
    for row in rows:
        layer = row["key"].rpartition("-")[2]
        if layer.isdecimal() and row["values"]:
            name = row["setting"].split(",")[0]
            curves.setdefault(name, []).append((int(layer), row["mean"], row["std"] or 0.0))
    plot_curves(path, TITLE, "layer of the features", "test accuracy (%)", curves)
