r"""Fine-tuning: a pretrained network learns the labels while it goes on to learn the images (paper, section 2.3).

    python -m igpt_jax train --config=experiments/finetune.py:from=runs/digits --workdir=runs/digits-finetuned \
      --config.optimizer.learning_rate=0.001
    python -m igpt_jax evaluate --workdir=runs/digits-finetuned --split=test

    python -m igpt_jax train --config=experiments/finetune.py:from=downloads/model.ckpt-1000000,size=l,data=cifar10 ...

Arguments: from=PATH is a work dir, or released weights; of these size=s|m|l|xl, resolution=32|48|64 and
objective=ar|bert say what they hold, as a work dir does by itself.  data=NAME; without it a work dir's own.

As in the paper: L_gen + L_clf, a fresh head on the pooled final norm, Adam and batch size of pretraining, no cosine,
and the end where the accuracy on held-out training images stops rising; of that run the best checkpoint counts.
CIFAR's images are padded by reflection, cropped and mirrored, others augmented as in pretraining.  The learning rate is
a tenth of that of pretraining: search around it.  The digits' small model, whose head reads 64 features, learns faster
at a third.  The paper is silent on the warm-up, here one epoch, and on how long it waits for a better accuracy, here
ten epochs.

Variants: --config.objective.generation_weight=0 learns the labels alone, with --config.initialise_from= from scratch;
--config.model.head_layer=2 reads an inner layer.
"""

import dataclasses
import pathlib

import ml_collections

from igpt_jax.config import SIZES, DataConfig, ObjectiveConfig, OptimizerConfig, RunConfig, default_config
from igpt_jax.errors import InputError
from igpt_jax.train.claim import CONFIG, read_claim

EPOCHS, PATIENCE = 100, 10  # epochs at most, and without a better accuracy
STEPS_AN_EPOCH = {"digits": 40, "stl10": 35, "cifar10": 352, "cifar100": 352, "imagenet2012": 9609}  # others: 100
PRETRAINING_RATES = {"s": 3e-3, "m": 3e-3, "l": 1e-3, "xl": 3e-4}  # Table 5


def get_config(arguments: str) -> ml_collections.ConfigDict:
    """Fine-tunes what the argument `from` names.  Raises InputError where the arguments do not say enough."""
    given = {"from": "", "data": "", "size": "s", "resolution": "32", "objective": "ar"}
    for argument in arguments.split(","):
        name, _, value = argument.partition("=")
        if name not in given or not value:
            raise InputError(f"{argument!r} is not an argument; give {', '.join(given)}, such as from=runs/digits")
        given[name] = value
    pretrained = _pretrained(given)
    data = given["data"] or pretrained.data.name
    if not given["from"] or not data:
        raise InputError("from=PATH is missing, or data=NAME for released weights, such as data=cifar10")

    config = default_config()
    config.initialise_from = given["from"]
    shape = {name: getattr(pretrained.model, name) for name in config.model if name not in ("classes", "head_layer")}
    config.model.update(shape)
    config.objective.name = pretrained.objective.name
    config.objective.mask_rate = pretrained.objective.mask_rate
    config.objective.class_weight = 1.0

    config.data.name = data
    config.data.directory = pretrained.data.directory
    config.data.batch_size = pretrained.data.batch_size
    config.data.augmentation = "pad_crop_flip" if data in ("cifar10", "cifar100") else "auto"
    config.optimizer.learning_rate = pretrained.optimizer.learning_rate / 10
    config.optimizer.schedule = "constant"

    epoch = STEPS_AN_EPOCH.get(data, 100)
    config.steps = EPOCHS * epoch
    config.checkpoint_every = config.evaluate.every = epoch
    config.evaluate.batch_size = pretrained.evaluate.batch_size
    config.evaluate.split = "validation"
    config.keep_best = "validation/accuracy"
    config.stop_after = PATIENCE
    return config


def _pretrained(given):
    """The config that the origin was trained with: that of a work dir, or what the arguments and the paper say."""
    origin = pathlib.Path(given["from"])
    if (origin / CONFIG).exists() and (origin / "checkpoints").exists():
        return read_claim(origin)[0]
    if given["size"] not in SIZES or not given["resolution"].isdecimal():
        raise InputError(f"size={given['size']} is not one of {', '.join(SIZES)}, or resolution no number")
    shape = {"resolution": int(given["resolution"]), "dtype": "bfloat16", "remat": "full"}
    return RunConfig(
        model=dataclasses.replace(SIZES[given["size"]], objective=given["objective"], **shape),
        data=DataConfig(name=""),
        objective=ObjectiveConfig(given["objective"]),
        optimizer=OptimizerConfig(PRETRAINING_RATES[given["size"]]),
    )
