"""A small Image GPT on digits blended with photographs: trains in minutes on two CPU cores.

    python -m igpt_jax train --config=experiments/blended_digits.py --workdir=runs/blended_digits

Each 8x8 digit is placed at random on a 16x16 square of a photograph.  Every channel is |digit - photograph|, as in
MNIST-M (Ganin et al. 2016, section 4.2).  The label is the digit, which colors alone do not tell.  Not an experiment of
the paper.
"""

import ml_collections

from experiments import photographs


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The whole run, with the model and the arguments of emoji.py."""
    config = photographs.get_config(arguments)
    config.data.name = "blended_digits"
    config.evaluate.probe.augmented_epochs = 3
    return config
