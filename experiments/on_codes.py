"""An Image GPT on the codes of 128x128 pictures, which a codec of codes.py made.

    python -m igpt_jax codes --config=experiments/codes.py --workdir=runs/codec
    python -m igpt_jax tokens --source=emoji --emoji_side=128 --resolution=128 --crops=4 --augmentation=flip
        --palette=runs/codec --out=runs/codes
    python -m igpt_jax train --config=experiments/on_codes.py:codes=runs/codes --workdir=runs/on_codes
    python -m igpt_jax plan --config=experiments/on_codes.py:scale=paper,resolution=48 --topology=v5p:2x2x4

At scale=miniature, the default, it is a model for two CPU cores, with the modern recipe.  resolution is the side of
the grid of codes: 16, or 32 for a codec of factor=4.  input=pixels trains the same model on emoji of 16x16 pixels in as
many colors as there are codes, to compare pictures and probes at one context length.  Nats per token of codes and of
pixels cannot be compared: a code stands for a square of 8x8 pixels that its decoder paints.

At scale=paper it is iGPT-L on codes of ImageNet, in the paper's recipe: resolution=48 for images of 192x192 pixels, or
24 for 96x96, with a codec of factor=4.  The ICML version of the paper reports 69.0 % for the linear probe at 192x192.
It does not say which learning rate, so this is the rate of Table 5 for 48x48.
"""

import ml_collections

from experiments.arguments import read_arguments
from experiments.recipe import RECIPES, add_ingredients
from experiments.table5_pretrain import pretraining_config
from igpt_jax.config import default_config


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The whole run.

    Raises:
      InputError: an argument is not known.
    """
    chosen = read_arguments(
        arguments,
        scale=("miniature", "paper"),
        input=("codes", "pixels"),
        codes="runs/codes",
        codec="runs/codec",
        resolution=16,
        vocabulary=512,
    )
    if chosen["scale"] == "paper":
        config = pretraining_config("l", 48, "ar", "paper")
        config.model.resolution, config.palette.path = chosen["resolution"], chosen["codec"]
    else:
        config = default_config()
        config.steps = 700
        config.log_every = 50
        config.checkpoint_every = 350
        config.model.layers, config.model.width, config.model.heads = 6, 128, 4
        config.model.unroll, config.model.resolution = 6, chosen["resolution"]
        config.data.batch_size = 32
        if chosen["input"] == "codes":
            config.data.name = f"tokens:{chosen['codes']}"
            config.optimizer.warmup_epochs = 0.25  # 11,440 training images: four crops of each emoji
        else:
            config.data.name, config.data.augmentation = "emoji", "flip"
            config.evaluate.probe.augmented_epochs = 4  # as many views as there are of codes
            config.optimizer.warmup_epochs = 1
        config.optimizer.learning_rate = 3e-3
        add_ingredients(config, (*RECIPES["modern"], "weight_decay"))
        config.evaluate.batch_size = 64
    config.model.vocabulary = chosen["vocabulary"]
    return config
