r"""Fine-tunes a pretrained model on labels, and on its generative objective at the same time (paper, section 2.3).

    python -m igpt_jax train --config=experiments/finetune.py:from=runs/digits --workdir=runs/digits-finetuned \
      --config.optimizer.learning_rate=0.001
    python -m igpt_jax evaluate --workdir=runs/digits-finetuned --split=test

    python -m igpt_jax train --config=experiments/finetune.py:from=downloads/model.ckpt-1000000,size=l,data=cifar10 ...

Arguments: from=PATH is a workdir or released weights.  For released weights, size=s|m|l|xl, resolution=32|48|64 and
objective=ar|bert say what they hold; a workdir has its own config.  data=NAME; the default is the data of the workdir.

As in the paper, the loss is L_gen + L_clf, a new class head reads the pooled output of the final norm, Adam and the
batch size are those of pretraining, and the learning rate is constant.  The run ends when the accuracy on held-out
training images stops rising, and its result is the best checkpoint.  CIFAR images are padded by reflection, cropped and
flipped; other images are augmented as in pretraining.  The learning rate is a tenth of pretraining's by default; search
around it.  For the small digits model, whose class head reads only 64 features, a third works better.  The paper does
not say how long the warm-up is (here one epoch), nor how long it waits for a better accuracy (here ten epochs).

Variants: --config.objective.generation_weight=0 trains on the labels alone; --config.initialize_from= trains from
scratch; --config.model.head_layer=2 reads an inner layer.
"""

import ml_collections

from experiments.arguments import read_arguments
from experiments.origins import ARGUMENTS, pretraining_of, start_from
from igpt_jax.config import RunConfig, default_config
from igpt_jax.errors import InputError

EPOCHS, PATIENCE = 100, 10  # epochs at most, and epochs without a better accuracy
STEPS_AN_EPOCH = {"digits": 40, "stl10": 35, "cifar10": 352, "cifar100": 352, "imagenet2012": 9609}  # others: 100


def get_config(arguments: str) -> ml_collections.ConfigDict:
    """Fine-tunes the model that the argument `from` names.

    Raises:
      InputError: an argument is not known, or `from` or `data` is missing.
    """
    chosen = read_arguments(arguments, **ARGUMENTS, data="")
    pretrained = pretraining_of(chosen)
    data = chosen["data"] or pretrained.data.name
    if not chosen["from"] or not data:
        raise InputError("from=PATH is missing, or data=NAME for released weights, such as data=cifar10")
    return finetuning(chosen["from"], pretrained, data)


def finetuning(origin: str, pretrained: RunConfig, data: str) -> ml_collections.ConfigDict:
    """The config of a fine-tuning run.

    Args:
      origin: the path of a workdir or of released weights; "" trains the same network from scratch.
      pretrained: the config of the origin, or of the network to train from scratch.
      data: name of the images and labels, as `config.data.name`.
    """
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
