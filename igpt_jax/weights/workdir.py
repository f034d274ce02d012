"""The work dirs of this package as a place for weights: read from any, and written with parameters alone."""

import contextlib
import dataclasses
import functools
import pathlib

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
from igpt_jax.weights.stream import Weights


@dataclasses.dataclass(frozen=True)
class Restored(Weights):
    """The weights of a checkpoint, which orbax restores onto any mesh by itself.

    chosen: the user named this very step, and no older one will do where it is damaged.
    """

    directory: pathlib.Path
    chosen: bool

    def place(self, mesh: Mesh) -> dict:
        """Restores every parameter into its sharding on the mesh."""
        like = abstract_params(ImageGPT(self.config), mesh)
        with contextlib.closing(Checkpoints(self.directory)) as checkpoints:
            if self.chosen:
                return checkpoints.restore_params(self.step, like)
            steps = sorted(checkpoints.steps, key=lambda step: (step != self.step, step > self.step, -step))
            return checkpoints.first_whole(steps, lambda step: checkpoints.restore_params(step, like))


def holds(path: pathlib.Path) -> bool:
    """Whether the path is a work dir with checkpoints, or one of its checkpoints."""
    return (path / "checkpoints").is_dir() or _is_checkpoint(path)


def read(path: pathlib.Path) -> Weights:
    """Opens the checkpoint that a work dir results in and that is not damaged, or the one at the path.

    Raises InputError where there is none.
    """
    chosen = _is_checkpoint(path)
    directory = path.parents[1] if chosen else path
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        if chosen:
            step, (config, palette) = int(path.name), checkpoints.about(int(path.name))
        else:
            step, (config, palette) = checkpoints.result(lambda step: (step, checkpoints.about(step)))

    @functools.cache
    def leaves():
        params = weights.place(_host())
        return {
            jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf)
            for keys, leaf in jax.tree.leaves_with_path(params)
        }

    def read_parameter(part):
        return leaves()[part.path] if part.layer is None else leaves()[part.path][part.layer]

    weights = Restored(
        config=config.model, read=read_parameter, palette=palette, step=step, directory=directory, chosen=chosen
    )
    return weights


def _is_checkpoint(path):
    return path.parent.name == "checkpoints" and path.name.isdecimal() and path.is_dir()


def write(weights: Weights, directory: pathlib.Path) -> None:
    """Writes a work dir that `evaluate` and `sample` take; without optimizer state, training cannot resume from it.

    Raises:
      InputError: the weights come without a palette.
    """
    if weights.palette is None:
        raise InputError("a work dir keeps its palette, and these weights have none; add --palette=kmeans_centers.npy")
    config = RunConfig(model=weights.config, objective=ObjectiveConfig(name=weights.config.objective))
    with contextlib.closing(Checkpoints(directory, keep=LatestN(1))) as checkpoints:
        checkpoints.save_params(weights.step, weights.place(_host()), config, weights.palette)
    write_config(directory, config, weights.palette)


def _host():
    """A mesh of one CPU: whole arrays in the host's memory."""
    return make_mesh(ParallelConfig(), jax.local_devices(backend="cpu")[:1])
