"""First light: a small Image GPT on scikit-learn's real digits, in minutes on two CPU cores.

    python -m igpt_jax train --config=experiments/digits.py --workdir=runs/digits

1,437 digits of 8x8 pixels, each at a random place on a 12x12 canvas; 360 more test.  A logistic regression gets
about 39 % of the test digits from raw pixels.  Not an experiment of the paper: its recipe, in miniature.
"""

import ml_collections

from igpt_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The whole run: palette, pretraining, evaluation and report."""
    config = default_config()
    config.steps = 1400
    config.log_every = 50
    config.checkpoint_every = 700

    config.model.layers = 4
    config.model.width = 64
    config.model.heads = 2
    config.model.resolution = 12
    config.model.vocabulary = 16
    config.model.unroll = 4

    config.data.name = "digits"
    config.data.batch_size = 32
    config.data.fold_validation = True  # all options are settled

    config.optimizer.learning_rate = 3e-3
    config.evaluate.batch_size = 40  # 32 to 60 at once take 0.65 ms each on two CPU cores, 120 0.9
    config.evaluate.probe.augmented_epochs = 3
    return config
