"""Table 4: probes with few labels on CIFAR-10, 73.2, 87.6 and 94.3 % with 4, 25 and 400 labels a class.

    python -m experiments.reproduce table4 --scale=miniature --workdir=runs/miniature

Uses the runs and the config of Table 1.  A logistic regression is fitted to iGPT-L's frozen features, without
augmentation or pseudo-labels, for five random subsets of the labels (section 4.7).  Layer and L2 strength are those of
the probe with all labels.  The report prints errors; the rows here have accuracies, 100 minus the error, as the paper's
text and blog do.
"""

from collections.abc import Callable
from typing import Any

from experiments import paper, scales
from experiments.runs import Result, probe_accuracy, raw_pixels
from experiments.table1_probe import get_config, probing
from experiments.table5_pretrain import pretraining
from experiments.tables import Row

__all__ = ["TITLE", "get_config", "rows"]

TITLE = "Probes of few labels"
CLASSES = 10


def rows(scale: str) -> list[Row]:
    """The paper's rows as accuracies, and raw pixels beside our own."""
    all_rows = []
    for entry in paper.entries("Table 4"):
        labels = int(entry["setting"].split()[0])
        setting = f"CIFAR-10, {labels} labels ({labels // CLASSES} a class)"
        row = Row(entry["method"], setting, round(100 - entry["value"], 1), entry["std"])
        all_rows += _ours(row, labels // CLASSES, scale) if entry["method"] == "iGPT-L" else [row]
    for entry in paper.entries("Section 4.7 text"):
        remark = "not run: fine-tuning 40 images needs them as a folder, data.name=folder:PATH"
        all_rows.append(Row(entry["method"], entry["setting"], entry["value"], remark=remark))
    return all_rows


def _ours(row: Row, labels: int, scale: str) -> list[Row]:
    job = probing(pretraining("l", "ar", scale), scales.STANDS_FOR, scale)
    common: dict[str, Any] = {"job": job, "paper": row.paper, "paper_std": row.paper_std}
    if scale == "miniature" and labels == 400:
        of, remark = "digits, all labels (about 144 a class)", "the paper's number is that of 400 a class"
        return [
            Row(row.name, of, read=probe_accuracy, key="all", remark=remark, **common),
            Row("raw pixels", of, job=job, read=raw_pixels, key="all-pixels"),
        ]
    of = row.setting if scale == "paper" else f"digits, {labels} labels a class"
    return [
        Row(row.name, of, read=_few(labels, "features"), key=f"{labels}", **common),
        Row("raw pixels", of, job=job, read=_few(labels, "raw_pixels"), key=f"{labels}-pixels"),
    ]


def _few(labels: int, of: str) -> Callable[[Result], float]:
    """Reads the mean accuracy over the subsets with `labels` labels a class, of "features" or of "raw_pixels"."""

    def read(result: Result) -> float:
        (row,) = (row for row in result.evaluation["probe"]["low_data"] if row["labels_per_class"] == labels)
        return (row if of == "features" else row[of])["accuracy"]

    return read
