"""The state of training: parameters and optimizer state, initialized directly into their shardings."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import shardings
from igpt_jax.types import Params


@flax.struct.dataclass
class TrainState:
    """Everything that a training step reads and writes, except its batch, which follows from the step number."""

    step: jax.Array
    params: Params
    opt_state: optax.OptState
    skipped: jax.Array  # steps whose gradient was not finite, and which changed nothing else


def abstract_params(model: ImageGPT, mesh: Mesh) -> Params:
    """Returns shapes, dtypes and shardings of the parameters: what a checkpoint is restored onto."""
    return _abstract(lambda: _draw_params(model, jax.random.key(0)), mesh)


def abstract_state(model: ImageGPT, optimizer: optax.GradientTransformation, mesh: Mesh | AbstractMesh) -> TrainState:
    """Returns shapes, dtypes and shardings of the whole state."""
    return _abstract(lambda: _first_state(_draw_params(model, jax.random.key(0)), optimizer), mesh)


def init_params(model: ImageGPT, seed: int, mesh: Mesh, names: tuple[str, ...] | None = None) -> Params:
    """Initializes the parameters as the released code does; every device computes only its own shards.

    Args:
      model: the network.
      seed: of the random numbers.  Equal seeds give equal parameters on every mesh.
      mesh: devices.
      names: top-level keys of the parameter tree to initialize; None initializes all of them.
    """
    return _initializer(model, mesh, names)(jax.random.key(seed))


def init_state(model: ImageGPT, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh) -> TrainState:
    """Returns the state of step 0, with the parameters of `init_params`."""
    return first_state(model, optimizer, init_params(model, seed, mesh), mesh)


def first_state(model: ImageGPT, optimizer: optax.GradientTransformation, params: Params, mesh: Mesh) -> TrainState:
    """Returns the state of step 0 with the given parameters, whose buffers are donated to it."""
    state_sharding = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(model, optimizer, mesh))
    start = jax.jit(lambda params: _first_state(params, optimizer), out_shardings=state_sharding, donate_argnums=0)
    return start(params)


@functools.cache  # the untrained baseline starts as the training did, and need not compile again
def _initializer(model: ImageGPT, mesh: Mesh, names: tuple[str, ...] | None) -> Callable[[jax.Array], Params]:
    like = abstract_params(model, mesh)
    chosen = like if names is None else {name: like[name] for name in names}
    sharding = jax.tree.map(lambda leaf: leaf.sharding, chosen)

    def draw(key: jax.Array) -> Params:
        params = nn.unbox(_draw_params(model, key))
        return {name: params[name] for name in sharding}

    return jax.jit(draw, out_shardings=sharding)


def _draw_params(model: ImageGPT, key: jax.Array) -> Params:
    tokens_bt = jnp.zeros((1, model.config.context), jnp.int32)
    rolled = ImageGPT(dataclasses.replace(model.config, unroll=1))  # draws the same, and compiles faster
    return rolled.init(key, tokens_bt, method="features")["params"]


def _first_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), skipped=jnp.zeros((), jnp.int32))


def _abstract(draw: Callable[[], Any], mesh: Mesh | AbstractMesh) -> Any:
    boxed = jax.tree.map(_without_empty_box, jax.eval_shape(draw), is_leaf=_is_box)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        nn.unbox(boxed),
        shardings(boxed, mesh),
    )


def _is_box(node: Any) -> bool:
    return isinstance(node, nn.meta.AxisMetadata)


def _without_empty_box(node: Any) -> Any:
    """Where an optimizer keeps nothing of a parameter, its logical axes are none of the state's."""
    return node.value if _is_box(node) and not jax.tree.leaves(node) else node
