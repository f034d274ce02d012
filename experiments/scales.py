"""The two scales of every experiment: the paper's own, and a miniature that two CPU cores finish in hours.

Both scales share the code of the experiments; this file has what differs.  In the miniature, scikit-learn's digits (8x8
pixels, placed at random on a 12x12 canvas) replace all images of the paper, and three small networks replace its S, M
and L.  The miniature's options were chosen on held-out training images with seed 10, which no published run has.
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
# The miniature replaces this data set by digits, and leaves out the paper's other data sets.
STANDS_FOR = "cifar10"
# Pretraining in the miniature: the same for every size and, as in the paper, for both objectives.
BATCH_SIZE = 32
STEPS = 2000
LEARNING_RATE = 3e-3


def shape(size: str, resolution: int, scale: str) -> ModelConfig:
    """The shape of a network.

    Args:
      size: "s", "m", "l" or "xl".
      resolution: pixels a side, in the paper; the miniature has 32 only, which means its digits.
      scale: "paper" or "miniature".

    Raises:
      InputError: the miniature does not have this size or resolution.
    """
    if scale == "paper":
        return SIZES[size]
    if size not in MINIATURE or resolution != 32:
        raise InputError(
            f"size={size},resolution={resolution} is not in the miniature, whose digits stand for 32x32 images; give "
            "size=s, m or l with resolution=32, or scale=paper"
        )
    return MINIATURE[size]


def check_miniature(table: str, scale: str) -> None:
    """Checks that a table that is in the miniature alone is not asked for in another scale.

    Raises:
      InputError: it is.
    """
    if scale != "miniature":
        raise InputError(f"{table} is in the miniature alone; give --scale=miniature")


def base_config(size: str, resolution: int, objective: str, scale: str) -> ml_collections.ConfigDict:
    """The model, the data and the evaluation of a pretraining run.

    Args:
      size: as for `shape`.
      resolution: as for `shape`.
      objective: "ar" or "bert".
      scale: as for `shape`.

    Raises:
      InputError: as for `shape`.
    """
    config = default_config()
    network = shape(size, resolution, scale)
    config.objective.name = objective
    config.model.layers, config.model.width, config.model.heads = network.layers, network.width, network.heads
    if scale == "paper":
        config.model.resolution = resolution
        config.model.dtype, config.model.remat = "bfloat16", "auto"
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
    """Sets how the miniature evaluates.

    Every test digit is measured at several places of the canvas, since there are only 360 of them, and probes are
    fitted to several views of every training digit.
    """
    config.evaluate.batch_size = 120
    config.evaluate.views = 3
    config.evaluate.probe.augmented_epochs = 3
    config.evaluate.probe.l2 = (1e-4, 1e-3, 1e-2)
    config.evaluate.probe.steps = 1000
    config.log_every = 100
