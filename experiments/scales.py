"""The two scales of every experiment: the paper's own, and a miniature that two CPU cores finish in two hours.

The code is the same for both; what differs is here.  Digits (scikit-learn's, 8x8 pixels) at a random place of a 12x12
canvas stand for all of the paper's images, and three small networks for its S, M and L.  The miniature's numbers were
chosen on held-out training images with seed 10, which no published run has.
"""

import ml_collections

from igpt_jax.config import SIZES, ModelConfig, default_config
from igpt_jax.errors import InputError

SCALES = ("paper", "miniature")
MINIATURE = {
    "s": ModelConfig(layers=3, width=32, heads=2, resolution=12, vocabulary=16),
    "m": ModelConfig(layers=4, width=48, heads=4, resolution=12, vocabulary=16),
    "l": ModelConfig(layers=6, width=64, heads=4, resolution=12, vocabulary=16),
}
# Where the paper has this data set, the miniature has digits; the others of the paper it leaves out.
STANDS_FOR = "cifar10"
# Of pretraining in the miniature, for every size and, as in the paper, for both objectives alike.
BATCH_SIZE = 32
STEPS = 2000
LEARNING_RATE = 3e-3


def shape(size: str, resolution: int, scale: str) -> ModelConfig:
    """The network's shape.  Raises InputError for a resolution that the miniature does not have."""
    if scale == "paper":
        return SIZES[size]
    if size not in MINIATURE or resolution != 32:
        raise InputError(
            f"size={size},resolution={resolution} is not in the miniature, whose digits stand for 32x32 images; give "
            "size=s, m or l with resolution=32, or scale=paper"
        )
    return MINIATURE[size]


def base_config(size: str, resolution: int, objective: str, scale: str) -> ml_collections.ConfigDict:
    """The model and the data of a pretraining run, and how it is measured."""
    config = default_config()
    network = shape(size, resolution, scale)
    config.objective.name = objective
    config.model.layers, config.model.width, config.model.heads = network.layers, network.width, network.heads
    if scale == "paper":
        config.model.resolution = resolution
        config.model.dtype, config.model.remat = "bfloat16", "full"
        config.data.name = "imagenet2012"
        config.data.batch_size = 64 if size == "xl" else 128
        return config
    config.model.resolution, config.model.vocabulary = network.resolution, network.vocabulary
    config.model.unroll = network.layers
    config.data.name = "digits"
    config.data.batch_size = BATCH_SIZE
    measure_in_miniature(config)
    return config


def measure_in_miniature(config: ml_collections.ConfigDict) -> None:
    """Sees every test digit at several places, so that 360 of them say more; and fits probes to several of each."""
    config.evaluate.batch_size = 120
    config.evaluate.views = 3
    config.evaluate.probe.augmented_epochs = 3
    config.evaluate.probe.l2 = (1e-4, 1e-3, 1e-2)
    config.evaluate.probe.steps = 1000
    config.log_every = 100
