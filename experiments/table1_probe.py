r"""Table 1: linear probes of iGPT-L on CIFAR-10 (96.3 %), CIFAR-100 (82.8 %) and STL-10 (95.5 %).

    python -m experiments.reproduce table1 --scale=miniature --workdir=runs/miniature
    python -m igpt_jax evaluate --workdir=runs/l32-cifar10 \
      --config=experiments/table1_probe.py:from=runs/l32,data=cifar10
    python -m igpt_jax evaluate --workdir=runs/s-cifar10 --config.palette.path=downloads/kmeans_centers.npy \
      --config=experiments/table1_probe.py:from=downloads/model.ckpt-1000000,size=s,data=cifar10

Arguments: from=PATH is a workdir or released weights; for released weights, size, resolution and objective say what
they hold.  data=cifar10|cifar100|stl10|digits, scale=paper|miniature.

The probe is a multinomial logistic regression, fitted by L-BFGS to the features of the best layer (1536 features for
L), without augmentation.  STL-10 is downsampled to 32x32 (section 3.1).  The paper says neither how it regularized nor
whether it standardized the features.  Here they are standardized, and L2 strength and layer are chosen on a held-out
tenth of the training images.  If there are enough labels, probes with 4, 25 and 400 labels a class are fitted as well
(Table 4).  A BERT model sees masked images, and five masks of each test image vote (Figure 4).  The features of 60,000
images in all 49 layers need 18 GB of disk.  One accelerator that holds the weights (6 GB for L) is enough.
"""

from typing import Any

import ml_collections

from experiments import paper, scales
from experiments.arguments import read_arguments
from experiments.origins import ARGUMENTS, pretraining_of, start_from
from experiments.runs import Job, probe_accuracy, raw_pixels, untrained
from experiments.table5_pretrain import pretraining
from experiments.tables import NOT_IN_MINIATURE, Row
from igpt_jax.config import default_config
from igpt_jax.errors import InputError

TITLE = "Linear probes"
DATA = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "STL-10": "stl10"}
LABELS_PER_CLASS = {"cifar10": (4, 25, 400), "digits": (4, 25)}


def get_config(arguments: str) -> ml_collections.ConfigDict:
    """Probes the model that the argument `from` names; for `python -m igpt_jax evaluate`.

    Raises:
      InputError: an argument is not known, or `from` is missing.
    """
    choices = {"data": (*DATA.values(), "digits"), "scale": scales.SCALES}
    chosen = read_arguments(arguments, **ARGUMENTS, **choices)
    if not chosen["from"]:
        raise InputError("from=PATH is missing, such as from=runs/l32,data=cifar10")
    config = default_config()
    start_from(config, chosen["from"], pretraining_of(chosen))
    config.data.name = chosen["data"]
    config.data.fold_validation = True  # the probe holds out images of its own
    if chosen["scale"] == "miniature":
        scales.measure_in_miniature(config)
    config.evaluate.probe.labels_per_class = LABELS_PER_CLASS.get(chosen["data"], ())
    return config


def probing(pretrained: Job, data: str, scale: str) -> Job:
    """The job that probes a pretraining job; the miniature probes digits, whatever `data` names."""
    data = data if scale == "paper" else "digits"
    name = f"{pretrained.name.replace('pretrain', 'probe')}-{data}"
    arguments = (f"data={data}", f"scale={scale}")
    return Job(name, "evaluate", "table1_probe.py", arguments, (("from", pretrained),))


def rows(scale: str) -> list[Row]:
    """The paper's rows; and beside our own, the same network untrained and raw pixels."""
    all_rows = []
    for entry in paper.entries("Table 1"):
        row = Row(entry["method"], f"{entry['dataset']}, {_transfer(entry)}", entry["value"])
        if entry["method"] != "iGPT-L":
            all_rows.append(row)
        elif scale == "miniature" and DATA[entry["dataset"]] != scales.STANDS_FOR:
            all_rows.append(Row(row.name, row.setting, row.paper, remark=NOT_IN_MINIATURE))
        else:
            all_rows += _ours(row, DATA[entry["dataset"]], scale)
    return all_rows


def _ours(row: Row, data: str, scale: str) -> list[Row]:
    job = probing(pretraining("l", "ar", scale), data, scale)
    of = row.setting if scale == "paper" else "digits in place of CIFAR-10, unsupervised"
    return [
        Row(row.name, of, row.paper, job=job, read=probe_accuracy, key=data),
        Row("the same network, untrained", of, job=job, read=untrained, key=f"{data}-untrained"),
        Row("raw pixels", of, job=job, read=raw_pixels, key=f"{data}-pixels"),
    ]


def _transfer(entry: dict[str, Any]) -> str:
    return "supervised on ImageNet" if "; sup " in entry["setting"] else "unsupervised on ImageNet"
