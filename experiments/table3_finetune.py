r"""Table 3 and section 4.5: iGPT-L fine-tuned, 99.0 % on CIFAR-10, 88.5 % on CIFAR-100, 66.3 and 72.6 % on ImageNet.

    python -m experiments.reproduce table3 --scale=miniature --workdir=runs/miniature
    python -m igpt_jax train --workdir=runs/l32-finetuned \
      --config=experiments/table3_finetune.py:from=runs/l32,data=cifar10,rate=0.0001
    python -m igpt_jax evaluate --workdir=runs/l32-finetuned --split=test

Arguments: from=PATH is a workdir or released weights; without it, a network of the given size, resolution and objective
is trained from scratch.  data=cifar10|cifar100|imagenet2012|digits, scale=paper|miniature.  rate is the learning rate;
by default (0) it is a tenth of pretraining's, or pretraining's own from scratch.  generation is the weight of L_gen
beside L_clf, 1 in the paper; 0 trains on the labels alone.  probe=PATH is the workdir of a probe, whose best layer the
class head reads.

Fine-tuning is that of experiments/finetune.py.  Its learning rate is searched downwards on held-out images, from a
third of pretraining's.  The paper also tuned dropout for training from scratch (53.2 %); here there is no dropout.
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
# In the miniature: the most epochs, epochs between two measurements, and measurements without a better accuracy.
MINIATURE_EPOCHS, MINIATURE_MEASURED, MINIATURE_PATIENCE = 40, 2, 4
MINIATURE_RATES = (3e-3, 1e-3)


def get_config(arguments: str) -> ml_collections.ConfigDict:
    """Fine-tunes a network, or trains a new one on the labels.

    Raises:
      InputError: an argument is not known, or the workdir of the argument `probe` has no probes.
    """
    choices = {"data": (*DATA.values(), "digits"), "scale": scales.SCALES}
    chosen = read_arguments(arguments, **ARGUMENTS, **choices, rate=0.0, generation=1.0, probe="")
    if chosen["from"]:
        pretrained = pretraining_of(chosen)
    else:
        shape = (chosen[name] for name in ("size", "resolution", "objective", "scale"))
        pretrained = RunConfig.from_dict(pretraining_config(*shape).to_dict())
    config = finetuning(chosen["from"], pretrained, chosen["data"])
    config.objective.generation_weight = chosen["generation"]
    default = pretrained.optimizer.learning_rate / (10 if chosen["from"] else 1)
    config.optimizer.learning_rate = chosen["rate"] or default
    if chosen["probe"]:
        config.model.head_layer = _best_layer(pathlib.Path(chosen["probe"]))
    if chosen["scale"] == "miniature":
        scales.measure_in_miniature(config)
        config.steps = MINIATURE_EPOCHS * STEPS_AN_EPOCH["digits"]
        config.checkpoint_every = config.evaluate.every = MINIATURE_MEASURED * STEPS_AN_EPOCH["digits"]
        config.stop_after = MINIATURE_PATIENCE
    return config


def _best_layer(probe: pathlib.Path) -> int:
    try:
        return json.loads((probe / "evaluation.json").read_text())["probe"]["best_layer"]
    except (OSError, KeyError) as error:
        raise InputError(f"probe={probe} has no evaluation.json with probes; give the workdir of one") from error


def tuning(pretrained: Job, data: str, scale: str, variant: str = "joint") -> Job:
    """The job that fine-tunes a pretraining job.

    Args:
      pretrained: the pretraining job.
      data: name of the images in the paper; the miniature has digits instead.
      scale: "paper" or "miniature".
      variant: "joint" for both objectives, "class-only" for the labels alone, or "inner" for both objectives with the
        class head on the layer with the best probe.
    """
    data = data if scale == "paper" else "digits"
    arguments = (f"data={data}", f"scale={scale}", *(("generation=0",) if variant == "class-only" else ()))
    inputs: tuple[tuple[str, Job], ...] = (("from", pretrained),)
    if variant == "inner":
        inputs += (("probe", probing(pretrained, data, scale)),)
    name = f"{pretrained.name.replace('pretrain', 'finetune')}-{data}-{variant}"
    return Job(name, "train", "table3_finetune.py", arguments, inputs, _rates(pretrained, scale, "fine-tune"))


def from_scratch(size: str, resolution: int, data: str, scale: str) -> Job:
    """The job that trains a new network on the labels alone."""
    data = data if scale == "paper" else "digits"
    shape = (f"size={size}", f"resolution={resolution}", "objective=ar")
    arguments = (*shape, f"data={data}", f"scale={scale}", "generation=0")
    rates = _rates(pretraining(size, "ar", scale, resolution), scale, "scratch")
    return Job(f"scratch-{size}{resolution}-{data}", "train", "table3_finetune.py", arguments, rates=rates)


def _rates(pretrained: Job, scale: str, what: str) -> tuple[float, ...]:
    """Learning rates in the order of the search.

    For fine-tuning, they begin at a third of pretraining's rate; from scratch (what="scratch"), and in the miniature,
    they begin at pretraining's own.
    """
    if scale == "miniature":
        return MINIATURE_RATES
    arguments = dict(argument.split("=") for argument in pretrained.arguments)
    rate = paper.learning_rates()[arguments["size"], int(arguments["resolution"]), arguments["objective"]]
    steps = (1, 3, 10, 30) if what == "scratch" else (3, 10, 30, 100)
    return tuple(float(f"{rate / step:.1g}") for step in steps)


def rows(scale: str) -> list[Row]:
    """The paper's rows, with those of section 4.5; and two variants: labels alone, and a head on an inner layer."""
    all_rows = []
    for entry in [*paper.entries("Table 3"), *paper.entries("Section 4.5 text")]:
        name, data = entry["method"], DATA[entry["dataset"]]
        row = Row(name, f"{entry['dataset']}, {entry['setting'].removeprefix('full fine-tune; ')}", entry["value"])
        resolution = 48 if "48" in entry["setting"] else 32
        if not name.startswith("iGPT-L"):
            all_rows.append(row)
        elif "random init" in name:
            all_rows.append(_scratch(row, resolution, data, scale))
        elif scale == "miniature" and data != scales.STANDS_FOR:
            all_rows.append(Row(row.name, row.setting, row.paper, remark=NOT_IN_MINIATURE))
        else:
            all_rows += _ours(row, resolution, data, scale)
    return all_rows


def _ours(row: Row, resolution: int, data: str, scale: str) -> list[Row]:
    pretrained = pretraining("l", "ar", scale, resolution)
    of = row.setting if scale == "paper" else "digits in place of CIFAR-10"
    key = data if resolution == 32 else f"{data}-{resolution}"
    own_rows = [Row(row.name, of, row.paper, job=tuning(pretrained, data, scale), read=accuracy, key=key)]
    if data == scales.STANDS_FOR:
        for variant, said in (("class-only", "L_clf alone"), ("inner", "head on the layer that probes best")):
            job = tuning(pretrained, data, scale, variant)
            own_rows.append(Row(row.name, f"{of}; {said}", job=job, read=accuracy, key=f"{data}-{variant}"))
    return own_rows


def _scratch(row: Row, resolution: int, data: str, scale: str) -> Row:
    of, remark = row.setting, ""
    if scale == "miniature":
        resolution, data = 32, scales.STANDS_FOR
        of, remark = "digits; labels alone", "the paper's number is ImageNet's, at 48x48"
    return Row(
        row.name, of, row.paper, job=from_scratch("l", resolution, data, scale), read=accuracy, key="scratch",
        remark=remark,
    )  # fmt: skip
