r"""Table 2 and section 4.4: linear probes on ImageNet, from 41.9 % (S) over 60.3 % (L) to 72.0 % (XL, five layers).

    python -m experiments.reproduce table2 --scale=miniature --workdir=runs/miniature
    python -m igpt_jax evaluate --workdir=runs/l48-imagenet --config=experiments/table2_imagenet.py:from=runs/l48

Arguments: from=PATH is a workdir, or released weights; of these size, resolution and objective say what they hold.
scale=paper|miniature.

SGD with momentum 0.9, a cosine, 1,000,000 steps, and the rates 30, 10, 3, ... until one does worse on held-out images
(section 3.1).  The paper cites MoCo's recipe for what it does not say: 256 images a step and no weight decay; one
central crop of each image.  Besides the best layer, the five about it are read side by side, as of XL (15360 features).
ImageNet's features of 49 layers of L take 390 GB of disk; give a few about the middle with
--config.evaluate.probe.layers="(20,22,24,26,28)" where that is too much.
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
    """Probes what the argument `from` names; for `python -m igpt_jax evaluate`."""
    given = read_arguments(arguments, **ARGUMENTS, scale=scales.SCALES)
    if not given["from"]:
        raise InputError("from=PATH is missing, such as from=runs/l32")
    config = default_config()
    start_from(config, given["from"], pretraining_of(given))
    config.data.name = "imagenet2012"
    config.data.fold_validation = True  # the probe holds images out by itself
    config.evaluate.probe.steps = 1_000_000
    if given["scale"] == "miniature":
        config.data.name = "digits"
        scales.measure_in_miniature(config)
    config.evaluate.probe.solver = "sgd"
    config.evaluate.probe.concatenate = min(SIDE_BY_SIDE, config.model.layers + 1)
    return config


def probing(pretrained: Job, scale: str) -> Job:
    """Probes a pretraining run on the images that it was pretrained on."""
    name = pretrained.name.replace("pretrain", "sgd-probe")
    return Job(name, "evaluate", "table2_imagenet.py", (f"scale={scale}",), (("from", pretrained),))


def rows(scale: str) -> list[Row]:
    """The paper's rows, S and M from the text of section 4.4, and five layers of L."""
    found = []
    for entry in [*reversed(paper.entries("Section 4.4 text")), *paper.entries("Table 2")]:
        name = entry["method"]
        setting = entry["setting"].removeprefix("linear probe; ").replace("^2x3", "^2")
        if not name.startswith("iGPT"):
            found.append(Row(name, setting, entry["value"]))
        elif name == "iGPT-XL":
            found.append(Row(name, setting, entry["value"], remark=XL_REMARK))
        else:
            found += _ours(name, setting, entry["value"], scale)
    return found


def _ours(name, setting, value, scale):
    size, resolution = name[-1].lower(), 48 if "IR 48" in setting else 32
    if scale == "miniature" and resolution != 32:
        return [Row(name, setting, value, remark=NOT_IN_MINIATURE)]
    if scale == "miniature":
        setting = f"digits; features {scales.MINIATURE[size].width}"
    run = probing(pretraining(size, "ar", scale, resolution), scale)
    key = f"{size}{resolution}"
    found = [Row(name, setting, value, run=run, read=probe_accuracy, key=key)]
    if size == "l":
        several = f"{setting}; five layers side by side"
        found.append(Row(name, several, run=run, read=concatenated, key=f"{key}-concatenated"))
    return found
