"""Figures 2 and 3 in color: probes by layer, and loss and probe over training, on photographs and on blended digits.

    python -m experiments.reproduce in_color --scale=miniature --workdir=runs/miniature
    python -m igpt_jax train --config=experiments/in_color.py:data=photographs,layers=12 --workdir=runs/deep

Arguments: data=photographs|blended_digits, layers=3|6|12.  Width, steps and rate are those of the miniature's iGPT-L.
On photographs, the probe predicts which of ten photographs a square is from; on blended digits it predicts the digit,
which colors do not tell.  Loss and probes are measured on squares from other parts of the photographs, and on other
digits.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from experiments import scales
from experiments.arguments import read_arguments
from experiments.figure2_layers import minus_best, of_layer
from experiments.figure3_loss_and_probe import steps
from experiments.runs import Job, measured_at, raw_pixels, untrained
from experiments.table5_pretrain import pretraining_config
from experiments.tables import Row
from igpt_jax.report.curves import plot_curves

TITLE = "Figures 2 and 3 in color"
DATA = {"photographs": "photographs", "blended_digits": "blended digits"}
DEPTHS = (3, 6, 12)
COLORS = 64


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """One run, with the arguments above.

    Raises:
      InputError: an argument is not known.
    """
    chosen = read_arguments(arguments, data=tuple(DATA), layers=tuple(map(str, DEPTHS)))
    layers = int(chosen["layers"])
    config = pretraining_config("l", 32, "ar", "miniature")
    config.model.layers = config.model.unroll = layers
    config.model.vocabulary = COLORS
    config.data.name = chosen["data"]
    config.evaluate.views = 1
    return config


def rows(scale: str) -> list[Row]:
    """For each data set and depth: probes by layer, raw pixels, the untrained network; loss and probe over training.

    Raises:
      InputError: the scale is not the miniature.
    """
    scales.check_miniature("in_color", scale)
    return [row for data in DATA for layers in DEPTHS for row in _rows(data, layers)]


def _rows(data: str, layers: int) -> list[Row]:
    run = f"{data}-{layers}"
    job = Job(f"pretrain-{run}", "train", "in_color.py", (f"data={data}", f"layers={layers}"))
    settings = [(f"layer {layer}", "%", of_layer(layer), f"layer-{layer}") for layer in range(layers + 1)]
    settings += [
        (f"layer {layer} minus the chosen one", "points", minus_best(layer), f"{end}-minus-best")
        for end, layer in (("first", 0), ("last", layers))
    ]
    settings += [("raw pixels", "%", raw_pixels, "pixels"), ("untrained", "%", untrained, "untrained")]
    for step in steps("miniature"):
        settings.append((f"after {step:,} steps", "nats/token", measured_at(step, 0), f"{step}-nats"))
        settings.append((f"after {step:,} steps", "%", measured_at(step, 1), f"{step}-probe"))
    return [
        Row(f"{layers} layers", f"{DATA[data]}, {setting}", unit=unit, job=job, read=read, key=f"{run}-{key}")
        for setting, unit, read, key in settings
    ]


def draw(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws two figures for each data set, with standard deviations: `layers-DATA.png` and `loss-DATA.png`.

    Args:
      path: a file beside which the figures are written.
      rows: from `tables.measure`.
    """
    measured = {row["key"]: row for row in rows if row["values"]}

    def point(x: float, key: str) -> tuple[float, float, float]:
        return x, measured[key]["mean"], measured[key]["std"] or 0.0

    for data, name in DATA.items():
        by_layer, over_training, baselines = {}, {}, {}
        for layers in DEPTHS:
            run = f"{data}-{layers}"
            if f"{run}-pixels" in measured:
                by_layer[f"{layers} layers"] = [point(layer, f"{run}-layer-{layer}") for layer in range(layers + 1)]
                over_training[f"{layers} layers"] = [
                    point(measured[f"{run}-{step}-nats"]["mean"], f"{run}-{step}-probe") for step in steps("miniature")
                ]
                baselines = {"raw pixels": measured[f"{run}-pixels"]["mean"]}
                baselines[f"untrained, {layers} layers"] = measured[f"{run}-untrained"]["mean"]
        if not by_layer:
            continue
        y, loss = "test accuracy (%)", "test loss (nats per token; falls to the right)"
        plot_curves(
            path.with_name(f"layers-{data}.png"), f"{name}: probe by layer", "layer", y, by_layer, baselines=baselines
        )
        plot_curves(path.with_name(f"loss-{data}.png"), f"{name}: loss and probe", loss, y, over_training, falls=True)
