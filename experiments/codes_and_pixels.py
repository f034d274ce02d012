"""Linear probes by layer on codes, beside those on pixels, of the same model at the same context length.

    python -m igpt_jax codes --config=experiments/codes.py --workdir=runs/codec
    python -m igpt_jax tokens --source=emoji --emoji_side=128 --resolution=128 --crops=4 --augmentation=flip
        --palette=runs/codec --out=runs/codes
    python -m experiments.reproduce codes_and_pixels --scale=miniature --workdir=runs/miniature

The first two commands make the codes.  Both models of on_codes.py then see emoji as 256 tokens: 16x16 codes of squares
of 8x8 pixels, or 16x16 pixels in as many colors as there are codes.  The probe predicts the emoji's group.  The paper
compares no such pair; its ICML version reports only the probe on codes (69.0 % on ImageNet).
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import scales
from experiments.figure2_layers import minus_best, of_layer, plot_layers
from experiments.on_codes import get_config
from experiments.runs import Job, nats_per_token, probe_accuracy, raw_pixels, untrained
from experiments.tables import Row

TITLE = "Linear probe by layer, on codes and on pixels"
INPUTS = ("codes", "pixels")


def rows(scale: str) -> list[Row]:
    """For codes and for pixels: the loss, the probe of each layer, of raw colors and of the untrained network.

    Raises:
      InputError: the scale is not the miniature.
    """
    scales.check_miniature("codes_and_pixels", scale)
    layers = get_config().model.layers
    all_rows = []
    for kind in INPUTS:
        job = Job(f"pretrain-emoji-{kind}", "train", "on_codes.py", (f"input={kind}",))
        settings = [(f"layer {layer}", "%", of_layer(layer), f"layer-{layer}") for layer in range(layers + 1)]
        settings += [
            ("chosen layer", "%", probe_accuracy, "chosen"),
            (f"layer {layers} minus the chosen one", "points", minus_best(layers), "last-minus-chosen"),
            ("mean colors of squares" if kind == "codes" else "raw pixels", "%", raw_pixels, "colors"),
            ("untrained", "%", untrained, "untrained"),
            ("held-out loss", "nats/token", nats_per_token, "nats"),
        ]
        all_rows += [
            Row(kind, setting, unit=unit, job=job, read=read, key=f"{kind}-{key}")
            for setting, unit, read, key in settings
        ]
    return all_rows


def draw(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws accuracy by layer, with the standard deviation over the seeds."""
    plot_layers(path, TITLE, rows, lambda row: row["name"])
