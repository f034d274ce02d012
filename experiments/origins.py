"""What an experiment starts from: the workdir of a pretraining run, or released weights."""

import dataclasses
import pathlib

from experiments.paper import learning_rates
from igpt_jax.config import SIZES, DataConfig, ObjectiveConfig, OptimizerConfig, RunConfig
from igpt_jax.train.workdir_lock import CONFIG, read_config

ARGUMENTS = {"from": "", "size": tuple(SIZES), "resolution": 32, "objective": ("ar", "bert")}


def pretraining_of(given: dict) -> RunConfig:
    """The config that `given["from"]` was trained with: that of a workdir, or what size, resolution, objective say.

    Released weights have no name of data, and Table 5's learning rate.
    """
    origin = pathlib.Path(given["from"])
    if (origin / CONFIG).exists() and (origin / "checkpoints").exists():
        return read_config(origin)[0]
    size, resolution, objective = (given[name] for name in ("size", "resolution", "objective"))
    computed = {"resolution": resolution, "dtype": "bfloat16", "remat": "full"}
    return RunConfig(
        model=dataclasses.replace(SIZES[size], objective=objective, **computed),
        data=DataConfig(name=""),
        objective=ObjectiveConfig(objective),
        optimizer=OptimizerConfig(learning_rate=learning_rates().get((size, resolution, objective), 1e-3)),
    )


def start_from(config, origin: str, pretrained: RunConfig) -> None:
    """Gives a config the origin and its shape, objective and batches."""
    config.initialize_from = origin
    config.model.update({name: getattr(pretrained.model, name) for name in config.model if name not in _OF_A_HEAD})
    config.objective.name = pretrained.objective.name
    config.objective.mask_rate = pretrained.objective.mask_rate
    config.data.directory = pretrained.data.directory
    config.data.batch_size = pretrained.data.batch_size
    config.evaluate.batch_size = pretrained.evaluate.batch_size


_OF_A_HEAD = ("classes", "head_layer")
