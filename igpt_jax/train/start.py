"""The state that a run begins with."""

import contextlib
import pathlib
from collections.abc import Callable

import optax
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.storage import as_path
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.state import TrainState, abstract_state, first_state, init_params


def beginning(
    config: RunConfig,
    model: ImageGPT,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    initial_params: Callable[[], dict] | None,
) -> TrainState:
    """The whole state of `config.continue_from`; else step 0 with `initial_params`, or those that the seed draws.

    Raises DamagedCheckpoint where the checkpoint is not what was saved.
    """
    if config.continue_from:
        workdir, step = checkpoint_place(config.continue_from)
        with contextlib.closing(Checkpoints(workdir)) as checkpoints:
            return checkpoints.restore(step, abstract_state(model, optimizer, mesh))
    params = initial_params() if initial_params else init_params(model, config.seed, mesh)
    return first_state(model, optimizer, params, mesh)


def checkpoint_place(path: str) -> tuple[pathlib.Path, int]:
    """The workdir and the step of WORKDIR/checkpoints/STEP."""
    place = as_path(path)
    return place.parents[1], int(place.name)
