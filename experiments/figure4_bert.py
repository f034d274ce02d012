"""Figure 4: autoregressive and BERT models, probed and fine-tuned.

In the paper, autoregressive models have better probes, by one point on CIFAR-10 and six on ImageNet.  Fine-tuned, both
reach about the same accuracy: 99.0 and 98.6 % on CIFAR-10, 66.3 and 66.5 % on ImageNet.

    python -m experiments.reproduce figure4 --scale=miniature --workdir=runs/miniature

Uses the runs of Tables 1, 2 and 3, and the same runs for a BERT model.  A BERT model sees masked images in evaluation
too.  The most frequent prediction over five masks of an image gains almost one point on ImageNet (section 4.6).  The
accuracy without this vote is the mean over the five masks.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import scales, table1_probe, table2_imagenet
from experiments.runs import Job, accuracy, accuracy_vote, probe_accuracy, probe_vote
from experiments.table1_probe import get_config
from experiments.table3_finetune import tuning
from experiments.table5_pretrain import OBJECTIVE_NAMES, pretraining
from experiments.tables import Row
from igpt_jax.report.curves import plot_bars

__all__ = ["TITLE", "draw", "get_config", "rows"]

TITLE = "Autoregressive and BERT models, probed and fine-tuned"
# (data, what, objective, by vote) -> what the paper's text and its Tables 1 and 3 say.
PAPER: dict[tuple[str, str, str, bool], float | str] = {
    ("cifar10", "probe", "ar", False): 96.3,
    ("cifar10", "probe", "bert", False): "more than 1 below AR",
    ("cifar10", "probe", "bert", True): "largely unchanged",
    ("cifar10", "finetune", "ar", False): 99.0,
    ("cifar10", "finetune", "bert", False): 98.6,
    ("cifar10", "finetune", "bert", True): "largely unchanged",
    ("imagenet2012", "probe", "ar", False): 60.3,
    ("imagenet2012", "probe", "bert", False): "6 below AR",
    ("imagenet2012", "probe", "bert", True): "almost 1 more",
    ("imagenet2012", "finetune", "ar", False): 66.3,
    ("imagenet2012", "finetune", "bert", False): 66.5,
    ("imagenet2012", "finetune", "bert", True): "almost 1 more",
}


def rows(scale: str) -> list[Row]:
    """One row for each bar of the figure."""
    all_rows = []
    for (data, what, objective, by_vote), printed in PAPER.items():
        if scale == "miniature" and data != scales.STANDS_FOR:
            continue
        of = {"cifar10": "CIFAR-10", "imagenet2012": "ImageNet"}[data] if scale == "paper" else "digits"
        done = {"probe": "linear probe", "finetune": "fine-tuned"}[what]
        vote = ", vote of five masks" if by_vote else ""
        read = {
            ("probe", False): probe_accuracy,
            ("probe", True): probe_vote,
            ("finetune", False): accuracy,
            ("finetune", True): accuracy_vote,
        }[what, by_vote]
        job = _job(pretraining("l", objective, scale), what, data, scale)
        key = f"{data}-{what}-{objective}" + ("-vote" if by_vote else "")
        name = f"iGPT-L, {OBJECTIVE_NAMES[objective]}"
        all_rows.append(Row(name, f"{of}, {done}{vote}", printed, job=job, read=read, key=key))
    return all_rows


def _job(pretrained: Job, what: str, data: str, scale: str) -> Job:
    if what == "finetune":
        return tuning(pretrained, data, scale)
    if data == "imagenet2012":
        return table2_imagenet.probing(pretrained, scale)
    return table1_probe.probing(pretrained, data, scale)


def draw(path: pathlib.Path, rows: Sequence[dict[str, Any]]) -> None:
    """Draws the bars in the order of the rows."""
    bars = {}
    for row in rows:
        if row["values"]:
            name = "\n".join([row["name"].removeprefix("iGPT-L, "), *row["setting"].split(", ")])
            bars[name] = row["mean"], row["std"] or 0.0
    plot_bars(path, TITLE, "test accuracy (%)", bars)
