"""What an experiment starts from: the workdir of a pretraining run, or released weights."""

import dataclasses
import pathlib
from typing import Any

import ml_collections

from experiments.paper import learning_rates
from igpt_jax.config import SIZES, DataConfig, ObjectiveConfig, OptimizerConfig, RunConfig
from igpt_jax.train.workdir_lock import CONFIG, read_config

# Arguments of config files that start from an origin, for `read_arguments`.
ARGUMENTS: dict[str, Any] = {"from": "", "size": tuple(SIZES), "resolution": 32, "objective": ("ar", "bert")}
_CLASS_HEAD = ("classes", "head_layer")  # options that an origin does not pass on: a run has a class head of its own


def pretraining_of(arguments: dict[str, Any]) -> RunConfig:
    """The config that an origin was trained with.

    Args:
      arguments: the values of `ARGUMENTS`.

    Returns:
      If "from" is a workdir, its config.  Otherwise a config of the given size, resolution and objective, without a
      name of data and with the learning rate of the paper's Table 5.
    """
    origin = pathlib.Path(arguments["from"])
    if (origin / CONFIG).exists() and (origin / "checkpoints").exists():
        return read_config(origin)[0]
    size, resolution, objective = (arguments[name] for name in ("size", "resolution", "objective"))
    computed: dict[str, Any] = {"resolution": resolution, "dtype": "bfloat16", "remat": "auto"}
    return RunConfig(
        model=dataclasses.replace(SIZES[size], objective=objective, **computed),
        data=DataConfig(name=""),
        objective=ObjectiveConfig(objective),
        optimizer=OptimizerConfig(learning_rate=learning_rates().get((size, resolution, objective), 1e-3)),
    )


def start_from(config: ml_collections.ConfigDict, origin: str, pretrained: RunConfig) -> None:
    """Makes a config start from an origin.

    Args:
      config: the config to change; it takes the shape, the objective and the batch sizes of the origin.
      origin: the path of a workdir or of released weights; "" starts from random weights.
      pretrained: the config of the origin.
    """
    config.initialize_from = origin
    config.model.update({name: getattr(pretrained.model, name) for name in config.model if name not in _CLASS_HEAD})
    config.objective.name = pretrained.objective.name
    config.objective.mask_rate = pretrained.objective.mask_rate
    config.data.directory = pretrained.data.directory
    config.data.batch_size = pretrained.data.batch_size
    config.evaluate.batch_size = pretrained.evaluate.batch_size
