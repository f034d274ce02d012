r"""Table 3 and section 4.5: iGPT-L fine-tuned, 99.0 % on CIFAR-10, 88.5 % on CIFAR-100, 66.3 and 72.6 % on ImageNet.

    python -m experiments.reproduce table3 --scale=miniature --workdir=runs/miniature
    python -m igpt_jax train --workdir=runs/l32-finetuned \
      --config=experiments/table3_finetune.py:from=runs/l32,data=cifar10,rate=0.0001
    python -m igpt_jax evaluate --workdir=runs/l32-finetuned --split=test

Arguments: from=PATH is a workdir, or released weights; without it size, resolution and objective are drawn by the seed
and learn from scratch.  data=cifar10|cifar100|imagenet2012|digits, scale=paper|miniature.  rate: the learning rate; 0
is a tenth of pretraining's, or from scratch pretraining's own.  generation: the weight of L_gen beside L_clf, 1 in the
paper; 0 learns the labels alone.  probe=PATH is the workdir of a probe, whose best layer the head reads.

Fine-tuning is that of experiments/finetune.py.  Its learning rate is searched downwards from a third of pretraining's,
on held-out images.  The paper also tuned dropout where it learned from scratch (53.2 %); there is none here.
"""

import json
import pathlib

import ml_collections

from experiments import paper, scales
from experiments.arguments import read_arguments
from experiments.finetune import STEPS_AN_EPOCH, finetuning
from experiments.origins import ARGUMENTS, pretraining_of
from experiments.runs import Job, accuracy
from experiments.table1_probe import probing
from experiments.table5_pretrain import pretraining, pretraining_config
from experiments.tables import NOT_IN_MINIATURE, Row
from igpt_jax.config import RunConfig
from igpt_jax.errors import InputError

TITLE = "Fine-tuning"
DATA = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet": "imagenet2012"}
# In the miniature: epochs at most, epochs between two measurements, and measurements without a better accuracy.
MINIATURE_EPOCHS, MINIATURE_MEASURED, MINIATURE_PATIENCE = 40, 2, 4
MINIATURE_RATES = (3e-3, 1e-3)


def get_config(arguments: str) -> ml_collections.ConfigDict:
    """Fine-tunes a network, or trains a new one on the labels."""
    choices = {"data": (*DATA.values(), "digits"), "scale": scales.SCALES}
    given = read_arguments(arguments, **ARGUMENTS, **choices, rate=0.0, generation=1.0, probe="")
    if given["from"]:
        pretrained = pretraining_of(given)
    else:
        shape = (given[name] for name in ("size", "resolution", "objective", "scale"))
        pretrained = RunConfig.from_dict(pretraining_config(*shape).to_dict())
    config = finetuning(given["from"], pretrained, given["data"])
    config.objective.generation_weight = given["generation"]
    default = pretrained.optimizer.learning_rate / (10 if given["from"] else 1)
    config.optimizer.learning_rate = given["rate"] or default
    if given["probe"]:
        config.model.head_layer = _best_layer(pathlib.Path(given["probe"]))
    if given["scale"] == "miniature":
        scales.measure_in_miniature(config)
        config.steps = MINIATURE_EPOCHS * STEPS_AN_EPOCH["digits"]
        config.checkpoint_every = config.evaluate.every = MINIATURE_MEASURED * STEPS_AN_EPOCH["digits"]
        config.stop_after = MINIATURE_PATIENCE
    return config


def _best_layer(probe):
    try:
        return json.loads((probe / "evaluation.json").read_text())["probe"]["best_layer"]
    except (OSError, KeyError) as error:
        raise InputError(f"probe={probe} has no evaluation.json with probes; give the workdir of one") from error


def tuning(pretrained: Job, data: str, scale: str, variant: str = "joint") -> Job:
    """Fine-tunes a pretraining run: "joint", "class-only", or "inner" with the head on the layer that probes best."""
    data = data if scale == "paper" else "digits"
    arguments = (f"data={data}", f"scale={scale}", *(("generation=0",) if variant == "class-only" else ()))
    inputs = (("from", pretrained),)
    if variant == "inner":
        inputs += (("probe", probing(pretrained, data, scale)),)
    name = f"{pretrained.name.replace('pretrain', 'finetune')}-{data}-{variant}"
    return Job(name, "train", "table3_finetune.py", arguments, inputs, _rates(pretrained, scale, "fine-tune"))


def from_scratch(size: str, resolution: int, data: str, scale: str) -> Job:
    """Trains a new network on the labels alone."""
    data = data if scale == "paper" else "digits"
    shape = (f"size={size}", f"resolution={resolution}", "objective=ar")
    arguments = (*shape, f"data={data}", f"scale={scale}", "generation=0")
    rates = _rates(pretraining(size, "ar", scale, resolution), scale, "scratch")
    return Job(f"scratch-{size}{resolution}-{data}", "train", "table3_finetune.py", arguments, rates=rates)


def _rates(pretrained, scale, what):
    """Learning rates in the order of the search: from a third of pretraining's, or from scratch from that itself.

    In the miniature both begin at pretraining's own.
    """
    if scale == "miniature":
        return MINIATURE_RATES
    given = dict(argument.split("=") for argument in pretrained.arguments)
    rate = paper.learning_rates()[given["size"], int(given["resolution"]), given["objective"]]
    steps = (1, 3, 10, 30) if what == "scratch" else (3, 10, 30, 100)
    return tuple(float(f"{rate / step:.1g}") for step in steps)


def rows(scale: str) -> list[Row]:
    """The paper's rows and those of section 4.5; the objective of labels alone, and a head on an inner layer."""
    found = []
    for entry in [*paper.entries("Table 3"), *paper.entries("Section 4.5 text")]:
        name, data = entry["method"], DATA[entry["dataset"]]
        row = Row(name, f"{entry['dataset']}, {entry['setting'].removeprefix('full fine-tune; ')}", entry["value"])
        resolution = 48 if "48" in entry["setting"] else 32
        if not name.startswith("iGPT-L"):
            found.append(row)
        elif "random init" in name:
            found.append(_scratch(row, resolution, data, scale))
        elif scale == "miniature" and data != scales.STANDS_FOR:
            found.append(Row(row.name, row.setting, row.paper, remark=NOT_IN_MINIATURE))
        else:
            found += _ours(row, resolution, data, scale)
    return found


def _ours(row, resolution, data, scale):
    pretrained = pretraining("l", "ar", scale, resolution)
    of = row.setting if scale == "paper" else "digits in place of CIFAR-10"
    key = data if resolution == 32 else f"{data}-{resolution}"
    found = [Row(row.name, of, row.paper, run=tuning(pretrained, data, scale), read=accuracy, key=key)]
    if data == scales.STANDS_FOR:
        for variant, said in (("class-only", "L_clf alone"), ("inner", "head on the layer that probes best")):
            run = tuning(pretrained, data, scale, variant)
            found.append(Row(row.name, f"{of}; {said}", run=run, read=accuracy, key=f"{data}-{variant}"))
    return found


def _scratch(row, resolution, data, scale):
    of, remark = row.setting, ""
    if scale == "miniature":
        resolution, data = 32, scales.STANDS_FOR
        of, remark = "digits; labels alone", "the paper's number is ImageNet's, at 48x48"
    return Row(
        row.name, of, row.paper, run=from_scratch("l", resolution, data, scale), read=accuracy, key="scratch",
        remark=remark,
    )  # fmt: skip
