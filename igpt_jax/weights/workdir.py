"""The work dirs of this package as a place for weights: read from any, and written with parameters alone."""

import contextlib
import dataclasses
import functools
import json
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import ObjectiveConfig, ParallelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.state import abstract_params
from igpt_jax.weights.stream import Weights


@dataclasses.dataclass(frozen=True)
class Restored(Weights):
    """The weights of a checkpoint, which orbax restores onto any mesh by itself."""

    directory: pathlib.Path

    def place(self, mesh: Mesh) -> dict:
        """Restores every parameter into its sharding on the mesh."""
        with contextlib.closing(Checkpoints(self.directory)) as checkpoints:
            return checkpoints.restore_params(self.step, abstract_params(ImageGPT(self.config), mesh))


def holds(path: pathlib.Path) -> bool:
    """Whether the path is a work dir with checkpoints."""
    return (path / "checkpoints").is_dir()


def read(path: pathlib.Path) -> Weights:
    """Opens the newest checkpoint of a work dir.  Raises InputError where there is none."""
    with contextlib.closing(Checkpoints(path)) as checkpoints:
        step = checkpoints.require_latest_step()
        config, palette = checkpoints.about(step)

    @functools.cache
    def leaves():
        params = weights.place(_host())
        return {
            jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf)
            for keys, leaf in jax.tree.leaves_with_path(params)
        }

    def read_parameter(part):
        return leaves()[part.path] if part.layer is None else leaves()[part.path][part.layer]

    weights = Restored(config=config.model, read=read_parameter, palette=palette, step=step, directory=path)
    return weights


def write(weights: Weights, directory: pathlib.Path) -> None:
    """Writes a work dir that `evaluate` and `sample` take; without optimiser state, training cannot resume from it.

    Raises:
      InputError: the weights come without a palette.
    """
    if weights.palette is None:
        raise InputError("a work dir keeps its palette, and these weights have none; add --palette=kmeans_centers.npy")
    config = RunConfig(model=weights.config, objective=ObjectiveConfig(name=weights.config.objective))
    with contextlib.closing(Checkpoints(directory, keep=1)) as checkpoints:
        checkpoints.save_params(weights.step, weights.place(_host()), config, weights.palette)
    (directory / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
    weights.palette.save(directory / "palette.npy")


def _host():
    """A mesh of one CPU: whole arrays in the host's memory."""
    return make_mesh(ParallelConfig(), jax.local_devices(backend="cpu")[:1])
