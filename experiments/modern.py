"""A recipe of today beside the paper's: any data set, any size.

    python -m igpt_jax train --config=experiments/modern.py:data=digits --workdir=runs/modern
    python -m igpt_jax train --config=experiments/modern.py:data=imagenet2012,size=s --workdir=runs/s

Arguments: data, size=small|s|m|l|xl, resolution, vocabulary, steps, recipe=modern|paper, add and remove: ingredients
joined by +, such as add=muon+rotary.
"""

import ml_collections

from experiments.arguments import read_arguments
from igpt_jax.config import SIZES, ModelConfig, default_config

INGREDIENTS = {
    "rotary": {"model.positions": "rotary"},
    "qk_norm": {"model.qk_norm": True},
    "squared_relu": {"model.activation": "squared_relu"},
    "swiglu": {"model.activation": "swiglu"},
    "muon": {"optimizer.name": "muon"},
    "wsd": {"optimizer.schedule": "wsd"},
}
RECIPES = {"modern": ("rotary", "qk_norm", "squared_relu", "muon", "wsd"), "paper": ()}
SMALL = ModelConfig(layers=4, width=64, heads=2, unroll=4)
# Images a side, colours, training images; of data sets that two CPU cores can learn.
EMBEDDED = {"digits": (12, 16, 1437), "emoji": (16, 128, 2926), "photographs": (16, 128, 24300)}


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The recipe's run."""
    given = read_arguments(
        arguments,
        data="digits",
        size=("small", "s", "m", "l", "xl"),
        resolution=0,
        vocabulary=0,
        steps=1400,
        recipe=tuple(RECIPES),
        add="",
        remove="",
    )
    config = default_config()
    side, colors, images = EMBEDDED.get(given["data"], (32, 512, 0))
    shape = SIZES.get(given["size"], SMALL)
    config.model.layers, config.model.width, config.model.heads = shape.layers, shape.width, shape.heads
    config.model.resolution = given["resolution"] or side
    config.model.vocabulary = given["vocabulary"] or colors
    config.data.name = given["data"]
    config.steps = given["steps"]
    if given["size"] == "small":
        config.model.unroll = shape.unroll
        config.data.batch_size = 32
        config.optimizer.learning_rate = 3e-3
        config.optimizer.warmup_epochs = 50 * 32 / images
        config.evaluate.batch_size = 40
        config.evaluate.probe.augmented_epochs = 3
        config.data.fold_validation = True
        config.log_every = 50
        config.checkpoint_every = given["steps"]
        if given["data"] == "digits":
            config.evaluate.views = 3
    else:
        config.model.dtype, config.model.remat = "bfloat16", "full"
        config.optimizer.learning_rate = 1e-3
    ingredients = [x for x in RECIPES[given["recipe"]] if x not in given["remove"].split("+")]
    for name in [*ingredients, *filter(None, given["add"].split("+"))]:
        config.update_from_flattened_dict(INGREDIENTS[name])
    return config
