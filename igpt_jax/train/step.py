"""The training step: a pure function from state and batch to state and metrics."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import batch_sharding, logical_axes, replicated
from igpt_jax.train.state import TrainState, abstract_state
from igpt_jax.types import Batch


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    model: ImageGPT,
    optimizer: optax.GradientTransformation,
    objective: Callable,
    seed: int,
    microbatches: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one gradient step.  The same function serves one CPU and a pod; only the shardings differ.

    Where the loss or the gradient is NaN or infinite, parameters and optimizer state stay as they are, and `skipped`
    counts it.

    Args:
      state: before the step.
      batch: "tokens" (b, t) int32, and what else the objective needs.
      model: the network.
      optimizer: of optax.
      objective: (model, params, batch, rng) -> (loss, metrics), of objectives.py.
      seed: of the run; the random key of a step is a function of the seed and the step's number.
      microbatches: parts of the batch computed one after another.  Gradient and metrics are the means of theirs, and
        each has a random key of its own.

    Returns:
      The state after the step; and the objective's metrics with `gradient_norm` and `skipped`, all scalars.
    """
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    gradient = jax.grad(objective, argnums=1, has_aux=True)
    if microbatches == 1:
        grads, metrics = gradient(model, state.params, batch, rng)
    else:
        grads, metrics = _mean_over(
            microbatches, batch, lambda part, i: gradient(model, state.params, part, jax.random.fold_in(rng, i))
        )
    # One flag for the whole step: no device decides alone, and nothing waits for the host.
    metrics |= {"gradient_norm": optax.tree.norm(grads)}
    finite = jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))).all()
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), (params, opt_state), (state.params, state.opt_state)
    )
    next_state = TrainState(state.step + 1, params, opt_state, state.skipped + ~finite)
    return next_state, metrics | {"skipped": next_state.skipped}


def _mean_over(microbatches: int, batch: Batch, function: Callable[[Batch, jax.Array | int], Any]) -> Any:
    """The mean of function(part, number) over the microbatches.  Each part takes some of every device's images."""
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total: Any, numbered_part: tuple[Batch, jax.Array]) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(*numbered_part)), None

    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first, 0))
    total, _ = jax.lax.scan(add, zeros, (parts, jnp.arange(microbatches)))
    return jax.tree.map(lambda x: x / microbatches, total)


def jit_train_step(
    model: ImageGPT,
    optimizer: optax.GradientTransformation,
    objective: Callable,
    seed: int,
    mesh: Mesh | AbstractMesh,
    microbatches: int = 1,
) -> Any:
    """Jits `train_step` on the mesh, without compiling it yet.

    Returns:
      A jitted function (state, batch) -> (state, metrics), which donates the buffers of the state that goes in.
    """
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        with logical_axes(mesh):
            return train_step(
                state,
                batch,
                model=model,
                optimizer=optimizer,
                objective=objective,
                seed=seed,
                microbatches=microbatches,
            )

    return jax.jit(
        step,
        in_shardings=(state_sharding, batch_sharding(mesh)),
        out_shardings=(state_sharding, replicated(mesh)),
        donate_argnums=0,
    )
