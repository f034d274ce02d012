"""Decoding left to right: the network's equations with a cache, laid out for few positions at a time.

Activations stand width first, (d, n) for n = b·t positions, and weights (outputs, inputs): a product then repacks the
few activations, not the weights, which makes it three times as fast on a CPU.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.attention import cached_attention
from igpt_jax.model.transformer import NORM_EPSILON, quick_gelu

Cache = tuple[tuple[jax.Array, jax.Array], ...]  # for each layer its keys and values, (b, h, s, k)


def init_cache(config: ModelConfig, batch: int, length: int) -> Cache:
    """An empty cache for `length` positions: zeros (b, h, s, k) in the compute type, two a layer."""
    shape = (batch, config.heads, length, config.head_dim)
    return tuple((jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype)) for _ in range(config.layers))


def decoding_weights(config: ModelConfig, params: dict) -> dict:
    """Lays the parameters of an autoregressive model out for `decode`; once, outside of any loop.

    Returns the same tree with a list of layers under "blocks", kernels as (outputs, inputs) and biases as (outputs, 1)
    in the compute type, and a token head even where it is tied.
    """
    if not config.causal:
        raise InputError(
            "a bert model cannot draw an image left to right; hide pixels and fill them (complete --mask=FILE.png), "
            "or use a model trained with objective.name=ar"
        )
    if not config.token_head:
        raise InputError("this model has no token head, so it has features but neither likelihood nor samples")

    def linear(weights, inputs):
        kernel = weights["kernel"].astype(config.dtype).reshape(inputs, -1).T
        bias = weights["bias"].astype(config.dtype).reshape(-1, 1) if config.use_bias else 0
        return {"kernel": kernel, "bias": bias}

    def layer(number):
        block = jax.tree.map(lambda leaf: leaf[number], blocks)
        attention = {name: linear(weights, config.width) for name, weights in block["attention"].items()}
        mlp = {"up": linear(block["mlp"]["up"], config.width), "down": linear(block["mlp"]["down"], 4 * config.width)}
        return block | {"attention": attention, "mlp": mlp}

    params = nn.unbox(params)
    blocks = params["blocks"]
    head_vd = params["token_embedding"] if config.tied_head else params["token_head"].T
    layers = [layer(number) for number in range(config.layers)]
    return params | {"blocks": layers, "token_head": head_vd.astype(config.dtype)}


def decode(
    config: ModelConfig, weights: dict, previous_bt: jax.Array, position: jax.Array, cache: Cache
) -> tuple[jax.Array, Cache]:
    """Predicts t positions from `position` on, from a cache of all earlier ones.

    One position a call decodes; a whole prefix in one call fills the cache.

    Args:
      weights: from `decoding_weights`.
      previous_bt: (b, t) the tokens at `position - 1`..; the first is ignored at position 0, where the start vector
        stands.
      position: scalar integer, shared by the batch.
      cache: from `init_cache`, filled by the calls for positions 0..position-1.
    Returns:
      Logits (b, t, v) float32, and the cache with these positions' keys and values in it.
    """
    b, t = previous_bt.shape
    position_t = position + jnp.arange(t)
    embedded_btd = weights["token_embedding"][previous_bt]
    embedded_btd = jnp.where((position_t == 0)[None, :, None], weights["sos"][None, None], embedded_btd)
    h_btd = (embedded_btd + weights["position_embedding"][position_t][None]).astype(config.dtype)
    h_dn, filled_cache = h_btd.reshape(b * t, -1).T, []
    for block, layer_cache in zip(weights["blocks"], cache, strict=True):
        n_dn = _norm(block["attention_norm"], h_dn)
        mixed_dn, layer_cache = _attention(config, block["attention"], n_dn, t, position, layer_cache)
        h_dn += mixed_dn
        n_dn = _norm(block["mlp_norm"], h_dn)
        h_dn += _linear(block["mlp"]["down"], quick_gelu(_linear(block["mlp"]["up"], n_dn)))
        filled_cache.append(layer_cache)
    n_dn = _norm(weights["final_norm"], h_dn)
    logits_vn = jnp.dot(weights["token_head"], n_dn, preferred_element_type=jnp.float32)
    return logits_vn.T.reshape(b, t, -1), tuple(filled_cache)


def _attention(config, weights, n_dn, t, position, cache):
    """Writes the keys and values of t positions into the cache, then attends to it."""

    def heads(name):
        x_hkbt = _linear(weights[name], n_dn).reshape(config.heads, config.head_dim, -1, t)
        return x_hkbt.transpose(2, 0, 3, 1)

    cache = tuple(
        jax.lax.dynamic_update_slice_in_dim(old_bhsk, heads(name), position, axis=2)
        for name, old_bhsk in zip(("key", "value"), cache, strict=True)
    )
    mixed_bhtk = cached_attention(heads("query") * config.head_dim**-0.5, *cache, position)
    mixed_dn = mixed_bhtk.transpose(1, 3, 0, 2).reshape(n_dn.shape)
    return _linear(weights["out"], mixed_dn), cache


def _linear(weights, x_dn):
    return weights["kernel"] @ x_dn + weights["bias"]


def _norm(weights, x_dn):
    """`RMSNorm`, width first."""
    x32_dn = x_dn.astype(jnp.float32)
    scale_1n = jax.lax.rsqrt(jnp.mean(x32_dn**2, axis=0, keepdims=True) + NORM_EPSILON)
    return (x32_dn * scale_1n * weights["gain"][:, None]).astype(x_dn.dtype)
