"""Autoregressive decoding with a cache: the equations of `ImageGPT`, laid out for a few positions per call.

Activations are (n, d), for n = b·t positions, and weights are (inputs, outputs). Of the layouts tried, this is the
fastest for matmuls with few rows on a CPU.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.attention import attend, cached_attention
from igpt_jax.model.rotary import rotate
from igpt_jax.model.transformer import ACTIVATIONS, rms_norm
from igpt_jax.types import Params

LayerCache = tuple[jax.Array, jax.Array]  # a layer's keys (b, h, k, s) and values (b, h, s, k)
Cache = tuple[LayerCache, ...]  # one entry per layer
_KEY_AXIS, _VALUE_AXIS = 3, 2  # the axis s of keys and of values


def init_cache(config: ModelConfig, batch: int, length: int) -> Cache:
    """Creates an empty cache with room for `length` positions: zeros in the compute type.

    On a mesh, every device keeps the cache of its own images and heads.
    """
    axes = ("batch", "heads", None, None)

    def empty(*shape: int) -> jax.Array:
        return nn.with_logical_constraint(jnp.zeros((batch, config.heads, *shape), config.dtype), axes)

    return tuple((empty(config.head_dim, length), empty(length, config.head_dim)) for _ in range(config.layers))


def grow_cache(cache: Cache, length: int) -> Cache:
    """Pads a cache with zeros, to room for `length` positions."""

    def grow(x: jax.Array, axis: int) -> jax.Array:
        return jnp.pad(x, [(0, length - size if i == axis else 0) for i, size in enumerate(x.shape)])

    return tuple((grow(keys, _KEY_AXIS), grow(values, _VALUE_AXIS)) for keys, values in cache)


def decoding_weights(config: ModelConfig, params: Params) -> dict[str, Any]:
    """Lays out the parameters of an autoregressive model for `decode`. Call it once, outside of any loop.

    On a mesh, the result is whole on every device: weights are gathered once, and not for every position.

    Args:
      config: of the model.
      params: its parameters.

    Returns:
      The same tree, with two changes. "blocks" is a list with one entry per layer, each with its gains and with "qkv",
      "out", "up" and "down": kernels as (inputs, outputs), biases as (1, outputs), in the compute type. Query, key and
      value are concatenated, and so are gate and up if there is a gate, so that each group takes one matmul.
      "token_head" is there even if the head is tied.

    Raises:
      InputError: the model is a BERT model, or has no token head.
    """
    if not config.causal:
        raise InputError(
            "a bert model cannot draw an image left to right; hide pixels and fill them (complete --mask=FILE.png), "
            "or use a model trained with objective.name=ar"
        )
    if not config.token_head:
        raise InputError("this model has no token head, so it has features but neither likelihood nor samples")

    def linear(inputs: int, *parts: Params) -> dict[str, Any]:
        """Concatenates linear layers that read the same input."""
        kernels = [part["kernel"].astype(config.dtype).reshape(inputs, -1) for part in parts]
        biases = [part["bias"].astype(config.dtype).reshape(1, -1) for part in parts if config.use_bias]
        return {"kernel": jnp.concatenate(kernels, axis=1), "bias": jnp.concatenate(biases, axis=1) if biases else 0}

    def layer(number: int) -> dict[str, Any]:
        block = jax.tree.map(lambda leaf: leaf[number], blocks)
        attention, mlp = block["attention"], block["mlp"]
        return block | {
            "qkv": linear(config.width, attention["query"], attention["key"], attention["value"]),
            "out": linear(config.width, attention["out"]),
            "up": linear(config.width, *(mlp[name] for name in ("gate", "up") if name in mlp)),
            "down": linear(config.mlp_width, mlp["down"]),
        }

    params = jax.tree.map(lambda leaf: nn.with_logical_constraint(leaf, (None,) * leaf.ndim), nn.unbox(params))
    blocks = params["blocks"]
    head_dv = params["token_embedding"].T if config.tied_head else params["token_head"]
    layers = [layer(number) for number in range(config.layers)]
    return params | {"blocks": layers, "token_head": head_dv.astype(config.dtype)}


def decode(
    config: ModelConfig, weights: dict[str, Any], previous_bt: jax.Array, position_b: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Computes the logits of t positions of each image, from a cache of all earlier positions.

    With t = 1, calls decode position by position. A few positions per call check guesses of their tokens. One call with
    a whole prefix fills the cache.

    Args:
      config: of the model.
      weights: from `decoding_weights`.
      previous_bt: (b, t) integers in [0, v), the tokens before the t positions: those from `position_b` - 1 to
        `position_b` + t - 2. The token before position 0 is ignored: the start vector takes its place.
      position_b: (b,) integers, each image's first position; all 0 if the cache has room for exactly t positions.
      cache: from `init_cache`, filled by the calls for earlier positions. Whatever it holds at the t positions is
        overwritten, and whatever it holds beyond is ignored.

    Returns:
      Logits, (b, t, v) float32; and the cache, which now holds keys and values of the t positions too.
    """
    b, t = previous_bt.shape
    position_bt = position_b[:, None] + jnp.arange(t)[None]
    embedded_btd = weights["token_embedding"][previous_bt]
    embedded_btd = jnp.where((position_bt == 0)[:, :, None], weights["sos"][None, None], embedded_btd)
    if config.positions == "learned":
        embedded_btd += weights["position_embedding"][position_bt]
    h_nd, filled_cache = embedded_btd.astype(config.dtype).reshape(b * t, -1), []
    for block, layer_cache in zip(weights["blocks"], cache, strict=True):
        n_nd = _norm(block["attention_norm"], h_nd)
        mixed_nd, layer_cache = _attention(config, block, n_nd, t, position_b, layer_cache)
        h_nd += mixed_nd
        n_nd = _norm(block["mlp_norm"], h_nd)
        h_nd += _mlp(config, block, n_nd)
        filled_cache.append(layer_cache)
    n_nd = _norm(weights["final_norm"], h_nd)
    logits_nv = jnp.dot(n_nd, weights["token_head"], preferred_element_type=jnp.float32)
    return logits_nv.reshape(b, t, -1), tuple(filled_cache)


def _attention(
    config: ModelConfig, block: dict[str, Any], n_nd: jax.Array, t: int, position_b: jax.Array, cache: LayerCache
) -> tuple[jax.Array, LayerCache]:
    """Writes the keys and values of t positions into the cache, then attends to it."""
    qkv_bt3hk = _linear(block["qkv"], n_nd).reshape(-1, t, 3, config.heads, config.head_dim)
    q_bthk, k_bthk, v_bthk = (qkv_bt3hk[:, :, i] for i in range(3))
    position_bt = position_b[:, None] + jnp.arange(t)[None]
    q_bthk, k_bthk = _norm_and_rotate(config, block["attention"], q_bthk, k_bthk, position_bt)
    k_bhkt, v_bhtk = k_bthk.transpose(0, 2, 3, 1), v_bthk.transpose(0, 2, 1, 3)
    if cache[0].shape[_KEY_AXIS] == t:  # these positions fill the cache, so there are no earlier ones to attend to
        backend = "auto" if config.attention == "splash" else config.attention  # splash does not take every t
        cache, mixed_bthk = (k_bhkt, v_bhtk), attend(q_bthk, k_bthk, v_bthk, causal=True, backend=backend)
    else:
        keys, values = cache
        cache = _write(position_b, keys, k_bhkt, _KEY_AXIS), _write(position_b, values, v_bhtk, _VALUE_AXIS)
        q_bhtk = q_bthk.transpose(0, 2, 1, 3) * config.head_dim**-0.5
        mixed_bthk = cached_attention(q_bhtk, *cache, position_b).transpose(0, 2, 1, 3)
    return _linear(block["out"], mixed_bthk.reshape(n_nd.shape)), cache


def _write(position_b: jax.Array, old: jax.Array, new: jax.Array, axis: int) -> jax.Array:
    """Overwrites positions of the cache, from each image's own first position on."""
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=axis - 1))(old, new, position_b)


def _norm_and_rotate(
    config: ModelConfig, weights: dict[str, Any], q_bthk: jax.Array, k_bthk: jax.Array, position_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Applies the norms and rotations that the config asks for to queries and keys, as `Attention` does."""
    if config.qk_norm:
        q_bthk, k_bthk = _norm(weights["query_norm"], q_bthk), _norm(weights["key_norm"], k_bthk)
    if config.positions == "rotary":
        q_bthk = rotate(q_bthk, position_bt, config.resolution)
        k_bthk = rotate(k_bthk, position_bt - 1, config.resolution)
    return q_bthk, k_bthk


def _mlp(config: ModelConfig, block: dict[str, Any], n_nd: jax.Array) -> jax.Array:
    up = _linear(block["up"], n_nd)
    parts = jnp.split(up, up.shape[1] // config.mlp_width, axis=1)
    return _linear(block["down"], ACTIVATIONS[config.activation](*parts))


def _linear(weights: dict[str, Any], x_nd: jax.Array) -> jax.Array:
    return x_nd @ weights["kernel"] + weights["bias"]


def _norm(weights: dict[str, Any], x: jax.Array) -> jax.Array:
    return rms_norm(x, weights["gain"], x.dtype)
