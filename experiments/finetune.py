r"""Fine-tuning: a pretrained network learns the labels while it goes on to learn the images (paper, section 2.3).

    python -m igpt_jax train --config=experiments/finetune.py:from=runs/digits --workdir=runs/digits-finetuned \
      --config.optimizer.learning_rate=0.001
    python -m igpt_jax evaluate --workdir=runs/digits-finetuned --split=test

    python -m igpt_jax train --config=experiments/finetune.py:from=downloads/model.ckpt-1000000,size=l,data=cifar10 ...

Arguments: from=PATH is a workdir, or released weights; of these size=s|m|l|xl, resolution=32|48|64 and
objective=ar|bert say what they hold, as a workdir does by itself.  data=NAME; without it a workdir's own.

As in the paper: L_gen + L_clf, a fresh head on the pooled final norm, Adam and batch size of pretraining, no cosine,
and the end where the accuracy on held-out training images stops rising; of that run the best checkpoint counts.
CIFAR's images are padded by reflection, cropped and mirrored, others augmented as in pretraining.  The learning rate is
a tenth of that of pretraining: search around it.  The digits' small model, whose head reads 64 features, learns faster
at a third.  The paper is silent on the warm-up, here one epoch, and on how long it waits for a better accuracy, here
ten epochs.

Variants: --config.objective.generation_weight=0 learns the labels alone, with --config.initialize_from= from scratch;
--config.model.head_layer=2 reads an inner layer.
"""

import ml_collections

from experiments.arguments import read_arguments
from experiments.origins import ARGUMENTS, pretraining_of, start_from
from igpt_jax.config import RunConfig, default_config
from igpt_jax.errors import InputError

EPOCHS, PATIENCE = 100, 10  # epochs at most, and without a better accuracy
STEPS_AN_EPOCH = {"digits": 40, "stl10": 35, "cifar10": 352, "cifar100": 352, "imagenet2012": 9609}  # others: 100


def get_config(arguments: str) -> ml_collections.ConfigDict:
    """Fine-tunes what the argument `from` names.  Raises InputError where the arguments do not say enough."""
    given = read_arguments(arguments, **ARGUMENTS, data="")
    pretrained = pretraining_of(given)
    data = given["data"] or pretrained.data.name
    if not given["from"] or not data:
        raise InputError("from=PATH is missing, or data=NAME for released weights, such as data=cifar10")
    return finetuning(given["from"], pretrained, data)


def finetuning(origin: str, pretrained: RunConfig, data: str) -> ml_collections.ConfigDict:
    """Starts from `origin`, which `pretrained` made; "" has the seed draw such a network, which starts from scratch."""
    config = default_config()
    start_from(config, origin, pretrained)
    config.objective.class_weight = 1.0
    config.data.name = data
    config.data.augmentation = "pad_crop_flip" if data in ("cifar10", "cifar100") else "auto"
    config.optimizer.learning_rate = pretrained.optimizer.learning_rate / 10
    config.optimizer.schedule = "constant"

    epoch = STEPS_AN_EPOCH.get(data, 100)
    config.steps = EPOCHS * epoch
    config.checkpoint_every = config.evaluate.every = epoch
    config.evaluate.split = "validation"
    config.keep_best = "validation/accuracy"
    config.stop_after = PATIENCE
    return config
