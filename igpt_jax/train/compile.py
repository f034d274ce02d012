"""Compiles the training step with as little recomputation as a device's memory allows."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, Mesh
from jax.stages import Compiled

from igpt_jax.config import REMAT, ModelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import objective_function
from igpt_jax.parallel.plan import total_bytes
from igpt_jax.train.state import TrainState
from igpt_jax.train.step import jit_train_step


def compile_train_step(
    config: RunConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | AbstractMesh,
    state: TrainState,
    batch: Mapping[str, Any],
    hbm_bytes: float | None,
) -> tuple[Compiled, str]:
    """Compiles the training step of a config: its objective, its microbatches, and the `remat` that fits.

    Args:
      config: the run.
      optimizer: of optax.
      mesh: devices, which may be those of another machine.
      state: arrays, or shapes with shardings.
      batch: arrays, or shapes with shardings.
      hbm_bytes: bytes of a device's memory; None if unknown, and then everything fits.

    Returns:
      The compiled step, and the remat policy that it was compiled with.

    Raises:
      InputError: the step does not fit even if the backward pass recomputes everything.
    """
    objective = objective_function(config.objective)

    def compile_with(model_config: ModelConfig) -> Compiled:
        model, microbatches = ImageGPT(model_config), config.parallel.microbatches
        step_function = jit_train_step(model, optimizer, objective, config.seed, mesh, microbatches)
        return step_function.lower(state, batch).compile()

    return compile_to_fit(compile_with, config.model, hbm_bytes)


def compile_to_fit(
    compile_with: Callable[[ModelConfig], Compiled], config: ModelConfig, hbm_bytes: float | None
) -> tuple[Compiled, str]:
    """Compiles a step with the config's `remat`, or for "auto" with the first policy of `REMAT` that fits in memory.

    Args:
      compile_with: from a model config to the compiled step.
      config: the model.
      hbm_bytes: bytes of a device's memory; None if unknown, and then everything fits.

    Returns:
      The compiled step, and the remat policy that it was compiled with.

    Raises:
      InputError: the step does not fit even if the backward pass recomputes everything.
    """
    policies = REMAT if config.remat == "auto" else (config.remat,)
    for remat in policies:
        try:
            compiled = compile_with(dataclasses.replace(config, remat=remat))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            reason = str(error)
        else:
            if hbm_bytes is None or remat == policies[-1] or total_bytes(compiled) <= hbm_bytes:
                return compiled, remat
    raise InputError(
        f"the step does not fit a device's memory with model.remat={policies[-1]}: {reason[:200]}; "
        f"raise parallel.microbatches, or take more devices"
    )


def device_memory() -> int | None:
    """Returns the bytes that a device of this process may use, or None if it does not say, as a CPU."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
