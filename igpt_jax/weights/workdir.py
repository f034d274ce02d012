"""This package's workdirs as a format of weights: read from any run, and written without optimizer state."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from orbax.checkpoint.checkpoint_managers import LatestN

from igpt_jax.config import ObjectiveConfig, ParallelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.state import abstract_params
from igpt_jax.train.workdir_lock import write_config
from igpt_jax.types import Params
from igpt_jax.weights.layout import Part
from igpt_jax.weights.stream import Weights, params_reader


@dataclasses.dataclass(frozen=True)
class Restored(Weights):
    """The weights of a checkpoint, which Orbax can restore onto any mesh.

    Attributes:
      directory: the workdir.
      chosen: whether the user named this step, so that no other may replace it if it is damaged.
    """

    directory: pathlib.Path
    chosen: bool

    def place(self, mesh: Mesh) -> Params:
        """Restores all parameters into their shardings on the mesh."""
        like = abstract_params(ImageGPT(self.config), mesh)
        with contextlib.closing(Checkpoints(self.directory)) as checkpoints:
            if self.chosen:
                return checkpoints.restore_params(self.step, like)
            steps = sorted(checkpoints.steps, key=lambda step: (step != self.step, step > self.step, -step))
            return checkpoints.first_whole(steps, lambda step: checkpoints.restore_params(step, like))


def holds(path: pathlib.Path) -> bool:
    """Whether the path is a workdir with checkpoints, or one of its checkpoints."""
    return (path / "checkpoints").is_dir() or _is_checkpoint(path)


def read(path: pathlib.Path) -> Weights:
    """Opens the checkpoint that is the result of a run: its best, if it keeps that, or else its newest.

    Args:
      path: a workdir, or WORKDIR/checkpoints/STEP for exactly that checkpoint.

    Returns:
      The weights.  In a workdir, damaged checkpoints are passed over.

    Raises:
      InputError: there is no checkpoint, or none that is undamaged.
    """
    chosen = _is_checkpoint(path)
    directory = path.parents[1] if chosen else path
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        if chosen:
            step, (config, palette) = int(path.name), checkpoints.about(int(path.name))
        else:
            step, (config, palette) = checkpoints.result(lambda step: (step, checkpoints.about(step)))

    @functools.cache
    def reader() -> Callable[[Part], np.ndarray]:
        return params_reader(weights.place(_host()))

    weights = Restored(
        config=config.model,
        read=lambda part: reader()(part),
        palette=palette,
        step=step,
        directory=directory,
        chosen=chosen,
    )
    return weights


def _is_checkpoint(path: pathlib.Path) -> bool:
    return path.parent.name == "checkpoints" and path.name.isdecimal() and path.is_dir()


def write(weights: Weights, directory: pathlib.Path) -> None:
    """Writes a workdir for `evaluate` and `sample`.  It has no optimizer state, so training cannot resume from it.

    Raises:
      InputError: the weights have no palette.
    """
    if weights.palette is None:
        raise InputError("a workdir needs a palette, and these weights have none; add --palette=kmeans_centers.npy")
    config = RunConfig(model=weights.config, objective=ObjectiveConfig(name=weights.config.objective))
    with contextlib.closing(Checkpoints(directory, keep=LatestN(1))) as checkpoints:
        checkpoints.save_params(weights.step, weights.place(_host()), config, weights.palette)
    write_config(directory, config, weights.palette)


def _host() -> Mesh:
    """A mesh of one CPU, which keeps whole arrays in the host's memory."""
    return make_mesh(ParallelConfig(), jax.local_devices(backend="cpu")[:1])
