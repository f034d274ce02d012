"""Decoding left to right: the network's equations with a cache, laid out for few positions at a time.

Activations are rows, (n, d) for n = b·t positions, and weights (inputs, outputs): of the layouts tried, the fastest for
products of few rows on a CPU.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.attention import attend, cached_attention
from igpt_jax.model.rotary import rotate
from igpt_jax.model.transformer import ACTIVATIONS, NORM_EPSILON

Cache = tuple[tuple[jax.Array, jax.Array], ...]  # for each layer its keys (b, h, k, s) and values (b, h, s, k)
_POSITIONS = (3, 2)  # the axis of positions in either


def init_cache(config: ModelConfig, batch: int, length: int) -> Cache:
    """An empty cache for `length` positions: zeros in the compute type.

    On a mesh every device keeps those of its images and heads.
    """
    axes = ("batch", "heads", None, None)

    def empty(*shape):
        return nn.with_logical_constraint(jnp.zeros((batch, config.heads, *shape), config.dtype), axes)

    return tuple((empty(config.head_dim, length), empty(length, config.head_dim)) for _ in range(config.layers))


def grow_cache(cache: Cache, length: int) -> Cache:
    """The same cache with room for `length` positions."""

    def grow(x, axis):
        return jnp.pad(x, [(0, length - size if i == axis else 0) for i, size in enumerate(x.shape)])

    return tuple(tuple(map(grow, layer, _POSITIONS)) for layer in cache)


def decoding_weights(config: ModelConfig, params: dict) -> dict:
    """Lays the parameters of an autoregressive model out for `decode`; once, outside of any loop.

    Returns the same tree with a list of layers under "blocks", each with its gains and with "qkv", "out", "up" (which
    begins with the gate, where there is one) and "down": kernels as (inputs, outputs) and biases as (1, outputs) in the
    compute type; and a token head even where it is tied.  On a mesh every device has them whole: gathered once, not for
    every position.
    """
    if not config.causal:
        raise InputError(
            "a bert model cannot draw an image left to right; hide pixels and fill them (complete --mask=FILE.png), "
            "or use a model trained with objective.name=ar"
        )
    if not config.token_head:
        raise InputError("this model has no token head, so it has features but neither likelihood nor samples")

    def linear(inputs, *parts):
        """Linear maps of the same input side by side."""
        kernels = [part["kernel"].astype(config.dtype).reshape(inputs, -1) for part in parts]
        biases = [part["bias"].astype(config.dtype).reshape(1, -1) for part in parts if config.use_bias]
        return {"kernel": jnp.concatenate(kernels, axis=1), "bias": jnp.concatenate(biases, axis=1) if biases else 0}

    def layer(number):
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
    config: ModelConfig, weights: dict, previous_bt: jax.Array, position_b: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Predicts t positions of each image, from its own position on, from a cache of all earlier ones.

    One position a call decodes; a few at once check guesses of them; a whole prefix in one call fills the cache.

    Args:
      weights: from `decoding_weights`.
      previous_bt: (b, t) the tokens at `position_b - 1`..; the first is ignored at position 0, where the start vector
        stands.
      position_b: (b,) integers; all 0 where the cache has room for just t positions.
      cache: from `init_cache`, filled by the calls for earlier positions; what it holds of later ones is overwritten.
    Returns:
      Logits (b, t, v) float32, and the cache with these positions' keys and values in it.
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


def _attention(config, block, n_nd, t, position_b, cache):
    """Writes the keys and values of t positions into the cache, then attends to it."""
    qkv_bt3hk = _linear(block["qkv"], n_nd).reshape(-1, t, 3, config.heads, config.head_dim)
    q_bthk, k_bthk, v_bthk = (qkv_bt3hk[:, :, i] for i in range(3))
    q_bthk, k_bthk = _placed(config, block["attention"], q_bthk, k_bthk, position_b[:, None] + jnp.arange(t)[None])
    new = k_bthk.transpose(0, 2, 3, 1), v_bthk.transpose(0, 2, 1, 3)
    if cache[0].shape[_POSITIONS[0]] == t:  # there are no older positions
        cache, mixed_bthk = new, attend(q_bthk, k_bthk, v_bthk, causal=True, backend=config.attention)
    else:
        cache = tuple(map(functools.partial(_write, position_b), cache, new, _POSITIONS))
        q_bhtk = q_bthk.transpose(0, 2, 1, 3) * config.head_dim**-0.5
        mixed_bthk = cached_attention(q_bhtk, *cache, position_b).transpose(0, 2, 1, 3)
    return _linear(block["out"], mixed_bthk.reshape(n_nd.shape)), cache


def _write(position_b, old, new, axis):
    """Puts new positions into the cache, from each image's own on."""
    return jax.vmap(functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=axis - 1))(old, new, position_b)


def _placed(config, weights, q_bthk, k_bthk, position_bt):
    """Queries and keys as attention compares them."""
    if config.qk_norm:
        q_bthk, k_bthk = _norm(weights["query_norm"], q_bthk), _norm(weights["key_norm"], k_bthk)
    if config.positions == "rotary":
        q_bthk = rotate(q_bthk, position_bt, config.resolution)
        k_bthk = rotate(k_bthk, position_bt - 1, config.resolution)
    return q_bthk, k_bthk


def _mlp(config, block, n_nd):
    up = _linear(block["up"], n_nd)
    parts = jnp.split(up, up.shape[1] // config.mlp_width, axis=1)
    return _linear(block["down"], ACTIVATIONS[config.activation](*parts))


def _linear(weights, x_nd):
    return x_nd @ weights["kernel"] + weights["bias"]


def _norm(weights, x):
    """`RMSNorm` along the last axis."""
    x32 = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x32**2, axis=-1, keepdims=True) + NORM_EPSILON)
    return (x32 * scale * jnp.expand_dims(weights["gain"], range(x.ndim - 1))).astype(x.dtype)
