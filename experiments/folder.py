"""A folder of your own images: a small Image GPT that learns in minutes on two CPU cores.

    python -m igpt_jax palette --source=folder:my_images --size=64 --resolution=16 --out=palette.npy
    python -m igpt_jax train --config=experiments/folder.py:my_images --workdir=runs/mine
    python -m igpt_jax sample --workdir=runs/mine

JPEG, PNG or WebP of any sizes; class sub-folders, if there are any, give the labels for the probes.  Every image is
cropped at random and shrunk to 16x16.  A large folder gets up to three times as many steps as a small one.  Not
an experiment of the paper: its recipe, in miniature.
"""

import pathlib

import ml_collections

from igpt_jax.config import default_config


def get_config(folder: str) -> ml_collections.ConfigDict:
    """Pretraining on the images of a folder with the colors of palette.npy, evaluation and report."""
    config = default_config()
    files = sum(path.is_file() for path in pathlib.Path(folder).expanduser().rglob("*"))
    config.steps = min(max(400, 3 * files // 16), 1200)  # three epochs, within a few minutes
    config.checkpoint_every = 200

    config.model.layers = 4
    config.model.width = 64
    config.model.heads = 2
    config.model.resolution = 16
    config.model.vocabulary = 64
    config.model.unroll = 4

    config.data.name = f"folder:{folder}"
    config.data.batch_size = 16
    config.palette.path = "palette.npy"

    config.optimizer.learning_rate = 3e-3
    config.evaluate.batch_size = 64
    return config
