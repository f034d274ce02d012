r"""Table 2 and section 4.4: linear probes on ImageNet, from 41.9 % (S) over 60.3 % (L) to 72.0 % (XL, five layers).

    python -m experiments.reproduce table2 --scale=miniature --workdir=runs/miniature
    python -m igpt_jax evaluate --workdir=runs/l48-imagenet --config=experiments/table2_imagenet.py:from=runs/l48

Arguments: from=PATH is a workdir or released weights; for released weights, size, resolution and objective say what
they hold.  scale=paper|miniature.

The probe is trained by SGD with momentum 0.9 and a cosine schedule for 1,000,000 steps.  Learning rates of 30, 10, 3
and so on are tried until one is worse on held-out images (section 3.1).  For the rest, the paper cites MoCo's recipe:
256 images a step, no weight decay, one central crop of each image.  Besides the best layer, the five layers around it
are read together, as the paper does for XL (15360 features).  The features of ImageNet in L's 49 layers take 390 GB of
disk.  If that is too much, name a few layers near the middle with
--config.evaluate.probe.layers="(20,22,24,26,28)".
"""

import ml_collections

from experiments import paper, scales
from experiments.arguments import read_arguments
from experiments.origins import ARGUMENTS, pretraining_of, start_from
from experiments.runs import Job, concatenated, probe_accuracy
from experiments.table5_pretrain import XL_REMARK, pretraining
from experiments.tables import NOT_IN_MINIATURE, Row
from igpt_jax.config import default_config
from igpt_jax.errors import InputError

TITLE = "Linear probes by SGD, on the images of pretraining"
SIDE_BY_SIDE = 5  # layers


def get_config(arguments: str) -> ml_collections.ConfigDict:
    """Probes the model that the argument `from` names; for `python -m igpt_jax evaluate`.

    Raises:
      InputError: an argument is not known, or `from` is missing.
    """
    chosen = read_arguments(arguments, **ARGUMENTS, scale=scales.SCALES)
    if not chosen["from"]:
        raise InputError("from=PATH is missing, such as from=runs/l32")
    config = default_config()
    start_from(config, chosen["from"], pretraining_of(chosen))
    config.data.name = "imagenet2012"
    config.data.fold_validation = True  # the probe holds out images of its own
    config.evaluate.probe.steps = 1_000_000
    if chosen["scale"] == "miniature":
        config.data.name = "digits"
        scales.measure_in_miniature(config)
    config.evaluate.probe.solver = "sgd"
    config.evaluate.probe.concatenate = min(SIDE_BY_SIDE, config.model.layers + 1)
    return config


def probing(pretrained: Job, scale: str) -> Job:
    """The job that probes a pretraining job on the images of pretraining."""
    name = pretrained.name.replace("pretrain", "sgd-probe")
    return Job(name, "evaluate", "table2_imagenet.py", (f"scale={scale}",), (("from", pretrained),))


def rows(scale: str) -> list[Row]:
    """The paper's rows, with S and M from the text of section 4.4; and five layers of L together."""
    all_rows = []
    for entry in [*reversed(paper.entries("Section 4.4 text")), *paper.entries("Table 2")]:
        name = entry["method"]
        setting = entry["setting"].removeprefix("linear probe; ").replace("^2x3", "^2")
        if not name.startswith("iGPT"):
            all_rows.append(Row(name, setting, entry["value"]))
        elif name == "iGPT-XL":
            all_rows.append(Row(name, setting, entry["value"], remark=XL_REMARK))
        else:
            all_rows += _ours(name, setting, entry["value"], scale)
    return all_rows


def _ours(name: str, setting: str, value: float, scale: str) -> list[Row]:
    size, resolution = name[-1].lower(), 48 if "IR 48" in setting else 32
    if scale == "miniature" and resolution != 32:
        return [Row(name, setting, value, remark=NOT_IN_MINIATURE)]
    if scale == "miniature":
        setting = f"digits; features {scales.MINIATURE[size].width}"
    job = probing(pretraining(size, "ar", scale, resolution), scale)
    key = f"{size}{resolution}"
    own_rows = [Row(name, setting, value, job=job, read=probe_accuracy, key=key)]
    if size == "l":
        several = f"{setting}; five layers side by side"
        own_rows.append(Row(name, several, job=job, read=concatenated, key=f"{key}-concatenated"))
    return own_rows
