"""BERT models that are trained eight times as long as in Figure 4, until their held-out loss is nearly flat.

    python -m experiments.reproduce longer_bert --scale=miniature --workdir=runs/miniature
    python -m igpt_jax train --config=experiments/longer_bert.py --workdir=runs/longer_bert

A BERT model learns from the masked 15 % of an image alone, so in the miniature's 2,000 steps it has learned less than
an autoregressive model.  These runs try two claims fairly: that autoregressive models have better probes, and that
fine-tuning closes the gap.  The paper trained both kinds equally long, so this table is in the miniature alone.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from experiments import scales
from experiments.arguments import read_arguments
from experiments.runs import Job, accuracy, accuracy_vote, measured_at, probe_accuracy, probe_vote
from experiments.table1_probe import probing
from experiments.table3_finetune import tuning
from experiments.table5_pretrain import OBJECTIVE_NAMES, pretraining, pretraining_config
from experiments.tables import Row
from igpt_jax.report.curves import plot_curves

TITLE = "BERT, trained eight times as long"
TIMES = 8


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The miniature's BERT run of iGPT-L with `TIMES` times the steps, measured as often.

    Raises:
      InputError: there are arguments.
    """
    read_arguments(arguments)
    config = pretraining_config("l", 32, "bert", "miniature")
    config.checkpoint_every = config.evaluate.every = config.steps
    config.steps *= TIMES
    return config


def rows(scale: str) -> list[Row]:
    """Held-out loss and probe over training; then probes and fine-tuning beside those of the autoregressive model.

    Raises:
      InputError: the scale is not the miniature.
    """
    scales.check_miniature("longer_bert", scale)
    longer = Job("pretrain-longer-bert-l32", "train", "longer_bert.py", ())
    all_rows = []
    for step in range(scales.STEPS, TIMES * scales.STEPS + 1, scales.STEPS):
        setting, nats, probe = f"after {step:,} steps", measured_at(step, 0), measured_at(step, 1)
        all_rows.append(Row("BERT", setting, unit="nats/token", job=longer, read=nats, key=f"nats-{step}"))
        all_rows.append(Row("BERT", setting, job=longer, read=probe, key=f"probe-{step}"))
    data = scales.STANDS_FOR
    for objective, pretrained in {"ar": pretraining("l", "ar", scale), "bert": longer}.items():
        probed, tuned = probing(pretrained, data, scale), tuning(pretrained, data, scale)
        measured = {
            "linear probe": (probed, probe_accuracy, f"probe-{objective}"),
            "fine-tuned": (tuned, accuracy, f"finetune-{objective}"),
        }
        if objective == "bert":
            measured["linear probe, vote of five masks"] = probed, probe_vote, "probe-bert-vote"
            measured["fine-tuned, vote of five masks"] = tuned, accuracy_vote, "finetune-bert-vote"
        for setting, (job, read, key) in measured.items():
            all_rows.append(Row(OBJECTIVE_NAMES[objective], setting, job=job, read=read, key=f"{data}-{key}"))
    return all_rows


def draw(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws the probe's accuracy over training, and that of the autoregressive model."""
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        kind, _, step = row["key"].rpartition("-")
        if kind == "probe" and row["values"]:
            curves.setdefault("BERT", []).append((float(step), row["mean"], row["std"] or 0.0))
        elif row["key"].endswith("-probe-ar") and row["values"]:
            curves["autoregressive"] = [(scales.STEPS, row["mean"], row["std"] or 0.0)]
    plot_curves(path, TITLE, "steps", "test accuracy of a linear probe (%)", curves)
