"""Photographs: a small Image GPT on random squares of ten of them, in minutes on two CPU cores.

    python -m igpt_jax train --config=experiments/photographs.py --workdir=runs/photographs

16x16 pixels in 128 colors; no square comes twice, and the test's are from other parts of the photographs.  The label
that the probe predicts is the photograph.  Not an experiment of the paper.

The recipe was chosen on the validation squares (seed 0, 1,400 steps, nats per token): the paper's 1.450; the modern one
1.450; with weight decay 1.423.
"""

import ml_collections

from experiments import emoji


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The whole run, with the model and the arguments of emoji.py."""
    config = emoji.get_config(arguments)
    config.data.name = "photographs"
    config.data.augmentation = "auto"
    config.steps = 1400
    config.checkpoint_every = 700
    return config
