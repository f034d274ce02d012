"""The train state, born sharded, and the pure step that updates it."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import batch_sharding, replicated, shardings


@flax.struct.dataclass
class TrainState:
    """All that a step reads and writes; the data follow from the step number."""

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    skipped: jax.Array  # steps whose gradient was not finite, and which changed nothing else


def abstract_params(model: ImageGPT, mesh: Mesh) -> dict:
    """Shapes, types and shardings of the parameters: what a checkpoint is restored onto."""
    return _abstract(lambda: _draw_params(model, jax.random.key(0)), mesh)


def abstract_state(model: ImageGPT, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, types and shardings of the whole state."""
    return _abstract(lambda: _first_state(_draw_params(model, jax.random.key(0)), optimizer), mesh)


def init_params(model: ImageGPT, seed: int, mesh: Mesh) -> dict:
    """Draws the parameters with the released code's initialisers, every device its own shards only."""
    return _initialiser(model, mesh)(jax.random.key(seed))


def init_state(model: ImageGPT, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh) -> TrainState:
    """Draws the parameters as `init_params` does, with the optimiser's state, at step 0."""
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))
    start = jax.jit(lambda params: _first_state(params, optimizer), out_shardings=state_sharding, donate_argnums=0)
    return start(init_params(model, seed, mesh))


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: ImageGPT,
    optimizer: optax.GradientTransformation,
    objective: Callable,
    seed: int,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one gradient step; the same function serves one CPU and a pod, only the shardings differ.

    Where the loss or the gradient is NaN or infinite, parameters and optimiser stay as they are, and `skipped` counts.

    Returns the next state, and the objective's metrics with `gradient_norm` and `skipped`, all scalars.
    """
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    gradient = jax.grad(objective, argnums=1, has_aux=True)
    grads, metrics = gradient(model, state.params, batch, rng)
    metrics |= {"gradient_norm": optax.tree.norm(grads)}
    finite = jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))).all()
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), (params, opt_state), (state.params, state.opt_state)
    )
    next_state = TrainState(state.step + 1, params, opt_state, state.skipped + ~finite)
    return next_state, metrics | {"skipped": next_state.skipped}


def compile_step(
    model: ImageGPT, optimizer: optax.GradientTransformation, objective: Callable, seed: int, mesh: Mesh
) -> Callable:
    """`train_step` under jit on the mesh; the state that goes in is given up for the one that comes out."""
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))
    return jax.jit(
        lambda state, batch: train_step(state, batch, model=model, optimizer=optimizer, objective=objective, seed=seed),
        in_shardings=(state_sharding, batch_sharding(mesh)),
        out_shardings=(state_sharding, replicated(mesh)),
        donate_argnums=0,
    )


@functools.cache  # the untrained baseline starts as the training did, and need not compile again
def _initialiser(model, mesh):
    sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_params(model, mesh))
    return jax.jit(lambda key: nn.unbox(_draw_params(model, key)), out_shardings=sharding)


def _draw_params(model, key):
    tokens_bt = jnp.zeros((1, model.config.context), jnp.int32)
    rolled = ImageGPT(dataclasses.replace(model.config, unroll=1))  # draws the same, and compiles faster
    return rolled.init(key, tokens_bt, method="features")["params"]


def _first_state(params, optimizer):
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), skipped=jnp.zeros((), jnp.int32))


def _abstract(draw, mesh):
    boxed = jax.eval_shape(draw)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        shardings(boxed, mesh),
    )
