"""A small Image GPT on a folder of your own images: trains in minutes on two CPU cores.

    python -m igpt_jax train --config=experiments/folder.py:my_images --workdir=runs/mine
    python -m igpt_jax sample --workdir=runs/mine

The images are JPEG, PNG or WebP files of any size.  If the folder has class sub-folders, these are the labels that the
probes predict.  Every image is cropped at random and resized to 16x16, in 64 colors that
are fitted to the folder.  A large folder trains for up to three times as
many steps as a small one.  This is the paper's recipe in miniature, not an experiment of the paper.
"""

import pathlib

import ml_collections

from experiments.digits import use_tiny_model
from igpt_jax.config import default_config


def get_config(folder: str) -> ml_collections.ConfigDict:
    """Pretraining on the images of a folder with colors of its own, evaluation and report."""
    config = default_config()
    files = sum(path.is_file() for path in pathlib.Path(folder).expanduser().rglob("*"))
    config.steps = min(max(400, 3 * files // 16), 1200)  # three epochs, within a few minutes
    config.checkpoint_every = 200

    use_tiny_model(config, resolution=16, colors=64)

    config.data.name = f"folder:{folder}"
    config.data.batch_size = 16

    config.optimizer.learning_rate = 3e-3
    config.evaluate.batch_size = 64
    return config
