r"""Table 1: linear probes of iGPT-L on CIFAR-10 (96.3 %), CIFAR-100 (82.8 %) and STL-10 (95.5 %).

    python -m experiments.reproduce table1 --scale=miniature --workdir=runs/miniature
    python -m igpt_jax evaluate --workdir=runs/l32-cifar10 \
      --config=experiments/table1_probe.py:from=runs/l32,data=cifar10
    python -m igpt_jax evaluate --workdir=runs/s-cifar10 --config.palette.path=downloads/kmeans_centers.npy \
      --config=experiments/table1_probe.py:from=downloads/model.ckpt-1000000,size=s,data=cifar10

Arguments: from=PATH is a workdir, or released weights; of these size, resolution and objective say what they hold.
data=cifar10|cifar100|stl10|digits, scale=paper|miniature.

L-BFGS multinomial logistic regression on the features of the best layer, 1536 for L, without augmentation; STL-10 is
downsampled to 32x32 (section 3.1).  The paper says neither how it regularized nor whether it standardized: here L2
strength and layer are those that a held-out tenth of the training images reads best, on standardized features.  Where
there are enough labels a class, 4, 25 and 400 of them are probed as well (Table 4).  A BERT model sees its images
under masks, and five of them vote (Figure 4).  The 60,000 images' features of all 49 layers need 18 GB of disk.
One accelerator that holds the weights (6 GB for L) is enough.
"""

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
    """Probes what the argument `from` names; for `python -m igpt_jax evaluate`."""
    choices = {"data": (*DATA.values(), "digits"), "scale": scales.SCALES}
    given = read_arguments(arguments, **ARGUMENTS, **choices)
    if not given["from"]:
        raise InputError("from=PATH is missing, such as from=runs/l32,data=cifar10")
    config = default_config()
    start_from(config, given["from"], pretraining_of(given))
    config.data.name = given["data"]
    config.data.fold_validation = True  # the probe holds images out by itself
    if given["scale"] == "miniature":
        scales.measure_in_miniature(config)
    config.evaluate.probe.labels_per_class = LABELS_PER_CLASS.get(given["data"], ())
    return config


def probing(pretrained: Job, data: str, scale: str) -> Job:
    """Probes a pretraining run; the miniature has digits where the paper has CIFAR-10."""
    data = data if scale == "paper" else "digits"
    name = f"{pretrained.name.replace('pretrain', 'probe')}-{data}"
    arguments = (f"data={data}", f"scale={scale}")
    return Job(name, "evaluate", "table1_probe.py", arguments, (("from", pretrained),))


def rows(scale: str) -> list[Row]:
    """The paper's rows; and of our features' baselines, raw pixels and the untrained network."""
    found = []
    for entry in paper.entries("Table 1"):
        row = Row(entry["method"], f"{entry['dataset']}, {_transfer(entry)}", entry["value"])
        if entry["method"] != "iGPT-L":
            found.append(row)
        elif scale == "miniature" and DATA[entry["dataset"]] != scales.STANDS_FOR:
            found.append(Row(row.name, row.setting, row.paper, remark=NOT_IN_MINIATURE))
        else:
            found += _ours(row, DATA[entry["dataset"]], scale)
    return found


def _ours(row, data, scale):
    run = probing(pretraining("l", "ar", scale), data, scale)
    of = row.setting if scale == "paper" else "digits in place of CIFAR-10, unsupervised"
    return [
        Row(row.name, of, row.paper, run=run, read=probe_accuracy, key=data),
        Row("the same network, untrained", of, run=run, read=untrained, key=f"{data}-untrained"),
        Row("raw pixels", of, run=run, read=raw_pixels, key=f"{data}-pixels"),
    ]


def _transfer(entry):
    return "supervised on ImageNet" if "; sup " in entry["setting"] else "unsupervised on ImageNet"
