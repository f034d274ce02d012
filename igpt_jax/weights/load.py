"""One call from a path to a model that runs."""

import os
import pathlib

from igpt_jax.config import ParallelConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh


def load(path: str | os.PathLike) -> tuple[ImageGPT, dict, Palette]:
    """Reads the newest checkpoint of a work dir.

    Returns the module, its parameters (float32), and the palette that its tokens are made with.

    Raises:
      InputError: there is no checkpoint at the path.
    """
    from igpt_jax.train.checkpoint import Checkpoints  # orbax takes a second to import
    from igpt_jax.train.state import abstract_params

    checkpoints = Checkpoints(pathlib.Path(path))
    step = checkpoints.require_latest_step()
    config, palette = checkpoints.about(step)
    model = ImageGPT(config.model)
    params = checkpoints.restore_params(step, abstract_params(model, make_mesh(ParallelConfig())))
    checkpoints.close()
    return model, params, palette
