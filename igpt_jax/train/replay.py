"""One step taken again, to see which image it stumbled over."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import objective_function
from igpt_jax.parallel.mesh import put_batch
from igpt_jax.parallel.processes import allgather
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.compile import compile_train_step, device_memory
from igpt_jax.train.optimizer import optimizer_and_schedule
from igpt_jax.train.start import beginning
from igpt_jax.train.state import TrainState, abstract_state
from igpt_jax.types import Batch, Params

SHOWN = 20  # images


def replay(
    config: RunConfig,
    workdir: pathlib.Path,
    step: int,
    *,
    images_per_epoch: int,
    batches_from: Callable[[int], Iterator[dict[str, np.ndarray]]],
    mesh: Mesh,
    initial_params: Callable[[], dict] | None = None,
) -> dict[str, np.ndarray]:
    """Repeats training up to a step, writes nothing, and measures each image of that step's batch by itself.

    A BERT model sees every image under one mask, which is not that of the step.

    Training starts from the newest checkpoint before the step.  Prints the step's metrics, then the images, those with
    the highest loss first.

    Args:
      config: the run.
      workdir: of the run.
      step: counted as in metrics.jsonl, where the first batch makes step 1.
      images_per_epoch: as for `fit`.
      batches_from: as for `fit`.
      mesh: devices.
      initial_params: as for `fit`.

    Returns:
      (b,) arrays by name: "index", the objective's metrics of each image, and its "gradient_norm".

    Raises:
      InputError: a step that the run does not have.
    """
    if not 1 <= step <= config.steps:
        raise InputError(f"--replay={step} is not a step of this run, which has 1 to {config.steps}")
    model, objective = ImageGPT(config.model), objective_function(config.objective)
    # The kernels of TPUs and GPUs split a batch over the mesh, which a single image does not allow.
    model_of_one = ImageGPT(dataclasses.replace(config.model, attention="blockwise"))
    optimizer, _ = optimizer_and_schedule(config, images_per_epoch)
    state = _state_before(step, model, optimizer, config, workdir, mesh, initial_params)
    batches = (put_batch(batch, mesh) for batch in batches_from(int(state.step)))
    batch = next(batches)
    step_function, _ = compile_train_step(config, optimizer, mesh, state, batch, device_memory())
    print(f"from step {int(state.step)} to {step}")
    for _ in range(int(state.step), step - 1):
        state, _ = step_function(state, batch)
        batch = next(batches)

    rng = jax.random.fold_in(jax.random.key(config.seed), state.step)

    @jax.jit
    def measure_each(params: Params, batch: Batch) -> dict[str, jax.Array]:
        def measure(image: Batch) -> dict[str, jax.Array]:
            single = jax.tree.map(lambda x: x[None], image)
            grads, metrics = jax.grad(objective, argnums=1, has_aux=True)(model_of_one, params, single, rng)
            return metrics | {"gradient_norm": optax.tree.norm(grads)}

        return jax.lax.map(measure, batch)

    of_images = measure_each(state.params, batch) | {"index": batch["index"]}
    of_images = allgather(of_images)
    _, of_batch = step_function(state, batch)
    print(f"step {step}:", _line(of_batch))
    finite = np.isfinite([x for name, x in of_images.items() if name != "index"]).all(axis=0)
    worst = np.argsort(np.where(finite, -of_images["gradient_norm"], -np.inf), kind="stable")
    for i in worst[:SHOWN]:
        print(f"image {of_images['index'][i]}:", _line({k: x[i] for k, x in of_images.items() if k != "index"}))
    return of_images


def _state_before(
    step: int,
    model: ImageGPT,
    optimizer: optax.GradientTransformation,
    config: RunConfig,
    workdir: pathlib.Path,
    mesh: Mesh,
    initial_params: Callable[[], Params] | None,
) -> TrainState:
    like = abstract_state(model, optimizer, mesh)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        if any(saved < step for saved in checkpoints.steps):
            return checkpoints.newest(lambda saved: checkpoints.restore(saved, like), before=step)
    return beginning(config, model, optimizer, mesh, initial_params)


def _line(metrics: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {float(value):.6g}" for name, value in metrics.items())
