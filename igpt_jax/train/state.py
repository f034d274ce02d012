"""The train state, born sharded, and the pure step that updates it."""

import dataclasses
import functools
from collections.abc import Callable

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh
from jax.stages import Compiled

from igpt_jax.config import REMAT, ModelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import objective_function
from igpt_jax.parallel.mesh import batch_sharding, logical_axes, replicated, shardings
from igpt_jax.parallel.plan import total_bytes


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


def init_params(model: ImageGPT, seed: int, mesh: Mesh, names: tuple[str, ...] | None = None) -> dict:
    """Draws the parameters with the released code's initializers, every device its own shards only.

    names: of the branches of the tree to draw, as in the whole; None: all.
    """
    return _initializer(model, mesh, names)(jax.random.key(seed))


def init_state(model: ImageGPT, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh) -> TrainState:
    """Draws the parameters as `init_params` does, with the optimizer's state, at step 0."""
    return first_state(model, optimizer, init_params(model, seed, mesh), mesh)


def first_state(model: ImageGPT, optimizer: optax.GradientTransformation, params: dict, mesh: Mesh) -> TrainState:
    """Step 0 of training with these parameters, which are given up for it."""
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))
    start = jax.jit(lambda params: _first_state(params, optimizer), out_shardings=state_sharding, donate_argnums=0)
    return start(params)


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: ImageGPT,
    optimizer: optax.GradientTransformation,
    objective: Callable,
    seed: int,
    microbatches: int = 1,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one gradient step; the same function serves one CPU and a pod, only the shardings differ.

    Where the loss or the gradient is NaN or infinite, parameters and optimizer stay as they are, and `skipped` counts.
    With several microbatches, gradient and metrics are the means of theirs, each with a random key of its own.

    Returns the next state, and the objective's metrics with `gradient_norm` and `skipped`, all scalars.
    """
    rng = jax.random.fold_in(jax.random.key(seed), state.step)
    gradient = jax.grad(objective, argnums=1, has_aux=True)
    if microbatches == 1:
        grads, metrics = gradient(model, state.params, batch, rng)
    else:
        grads, metrics = _mean_over(
            microbatches, batch, lambda part, i: gradient(model, state.params, part, jax.random.fold_in(rng, i))
        )
    metrics |= {"gradient_norm": optax.tree.norm(grads)}
    finite = jnp.isfinite(jnp.stack(jax.tree.leaves(metrics))).all()
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params, opt_state = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), (params, opt_state), (state.params, state.opt_state)
    )
    next_state = TrainState(state.step + 1, params, opt_state, state.skipped + ~finite)
    return next_state, metrics | {"skipped": next_state.skipped}


def _mean_over(microbatches, batch, function):
    """The mean of function(part, number) over the microbatches; of each device's images, every part takes some."""
    parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(total, numbered_part):
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
) -> Callable:
    """`train_step` under jit on the mesh; the state that goes in is given up for the one that comes out."""
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))

    def step(state, batch):
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


def compile_train_step(
    config: RunConfig,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | AbstractMesh,
    state: TrainState,
    batch: dict[str, jax.Array],
    hbm_bytes: float | None,
) -> tuple[Compiled, str]:
    """Compiles the one step that a config asks for: its objective, microbatches, and the `remat` that fits.

    Args:
      state, batch: arrays, or shapes with shardings.
      hbm_bytes: as `compile_to_fit`, whose results and errors these are.
    """
    objective = objective_function(config.objective)

    def compile_with(model_config):
        model, microbatches = ImageGPT(model_config), config.parallel.microbatches
        step_function = jit_train_step(model, optimizer, objective, config.seed, mesh, microbatches)
        return step_function.lower(state, batch).compile()

    return compile_to_fit(compile_with, config.model, hbm_bytes)


def compile_to_fit(compile_with: Callable, config: ModelConfig, hbm_bytes: float | None) -> tuple[Compiled, str]:
    """Compiles a step with the config's `remat`, or for "auto" with the first of `REMAT` that fits a device's memory.

    Args:
      compile_with: from a model config to the compiled step.
      hbm_bytes: of a device; None where it does not say, and then everything fits.

    Returns:
      The compiled step, and the policy it was made with.

    Raises:
      InputError: not even recomputing everything fits.
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
    """Bytes that a device of this process may use, or None where it does not say (a CPU)."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


@functools.cache  # the untrained baseline starts as the training did, and need not compile again
def _initializer(model, mesh, names):
    like = abstract_params(model, mesh)
    chosen = like if names is None else {name: like[name] for name in names}
    sharding = jax.tree.map(lambda leaf: leaf.sharding, chosen)

    def draw(key):
        params = nn.unbox(_draw_params(model, key))
        return {name: params[name] for name in sharding}

    return jax.jit(draw, out_shardings=sharding)


def _draw_params(model, key):
    tokens_bt = jnp.zeros((1, model.config.context), jnp.int32)
    rolled = ImageGPT(dataclasses.replace(model.config, unroll=1))  # draws the same, and compiles faster
    return rolled.init(key, tokens_bt, method="features")["params"]


def _first_state(params, optimizer):
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), skipped=jnp.zeros((), jnp.int32))


def _abstract(draw, mesh):
    boxed = jax.tree.map(_without_empty_box, jax.eval_shape(draw), is_leaf=_is_box)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        shardings(boxed, mesh),
    )


def _is_box(node):
    return isinstance(node, nn.meta.AxisMetadata)


def _without_empty_box(node):
    """Where an optimizer keeps nothing of a parameter, its logical axes are none of the state's."""
    return node.value if _is_box(node) and not jax.tree.leaves(node) else node
