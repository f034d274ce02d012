"""A small Image GPT on scikit-learn's handwritten digits: trains in minutes on two CPU cores.

    python -m igpt_jax train --config=experiments/digits.py --workdir=runs/digits

1,437 digits of 8x8 pixels train the model, each placed at random on a 12x12 canvas; 360 others test it.  From raw
pixels, a logistic regression classifies 36 % of the test digits correctly.  This is the paper's recipe in
miniature, not an experiment of the paper.
"""

import ml_collections

from igpt_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The whole run: palette, pretraining, evaluation and report."""
    config = default_config()
    config.steps = 1400
    config.log_every = 50
    config.checkpoint_every = 700

    use_tiny_model(config, resolution=12, colors=16)

    config.data.name = "digits"
    config.data.batch_size = 32
    config.data.fold_validation = True  # all options are chosen, so the validation images train the model too

    config.optimizer.learning_rate = 3e-3
    config.evaluate.batch_size = 40  # on two CPU cores, batches of 32 to 60 take 0.65 ms an image, one of 120 0.9 ms
    config.evaluate.probe.augmented_epochs = 3
    return config


def use_tiny_model(config: ml_collections.ConfigDict, *, resolution: int, colors: int) -> None:
    """Sets the shape of a model that two CPU cores train in minutes: 4 layers of width 64.

    Args:
      config: the config to change.
      resolution: pixels a side.
      colors: colors in the palette.
    """
    config.model.layers = 4
    config.model.width = 64
    config.model.heads = 2
    config.model.resolution = resolution
    config.model.vocabulary = colors
    config.model.unroll = 4
