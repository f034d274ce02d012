"""Sampling left to right under one jit, with a cache that grows as the image does."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.errors import InputError
from igpt_jax.model.decode import decode, decoding_weights, init_cache
from igpt_jax.model.image_gpt import ImageGPT

SEGMENT = 128  # positions decoded before the cache grows: early ones then read a short cache


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a colour is drawn from its logits: temperature, then top-k, then top-p."""

    temperature: float = 1.0  # 0 takes the likeliest colour
    top_k: int = 0  # keep the k likeliest colours; 0 keeps all
    top_p: float = 1.0  # keep the likeliest colours until their probabilities sum to p

    def __post_init__(self):
        if self.temperature < 0:
            raise InputError(f"temperature={self.temperature} must not be negative; 0 takes the likeliest colour")
        if self.top_k < 0:
            raise InputError(f"top_k={self.top_k} must be 0 (all colours) or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p={self.top_p} must lie in (0, 1]; 1 keeps all colours")

    def __call__(self, rngs_b: jax.Array, logits_bv: jax.Array) -> jax.Array:
        """Draws one token an image, each with its own key.  Returns (b,) int32."""
        if self.temperature == 0:
            return logits_bv.argmax(axis=-1).astype(jnp.int32)
        logits_bv = logits_bv / self.temperature
        if self.top_k:
            kth_b1 = jax.lax.top_k(logits_bv, self.top_k)[0][:, -1:]
            logits_bv = jnp.where(logits_bv < kth_b1, -jnp.inf, logits_bv)
        if self.top_p < 1:
            order_bv = jnp.argsort(logits_bv, axis=-1, descending=True)
            sorted_bv = jax.nn.softmax(jnp.take_along_axis(logits_bv, order_bv, axis=-1), axis=-1)
            kept_bv = jnp.cumsum(sorted_bv, axis=-1) - sorted_bv < self.top_p
            kept_bv = jnp.put_along_axis(jnp.zeros_like(kept_bv), order_bv, kept_bv, axis=-1, inplace=False)
            logits_bv = jnp.where(kept_bv, logits_bv, -jnp.inf)
        return jax.vmap(jax.random.categorical)(rngs_b, logits_bv).astype(jnp.int32)


def image_keys(seed: int, n: int) -> jax.Array:
    """One key an image: image i is the same however many are drawn beside it."""
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(n))


@functools.partial(jax.jit, static_argnames=("model", "sampler"))
def sample(
    model: ImageGPT, params: dict, rngs_b: jax.Array, given_bt: jax.Array, sampler: Sampler = Sampler()
) -> jax.Array:
    """Continues every image from its given first tokens to the last position.

    Args:
      rngs_b: (b,) keys, from `image_keys`.
      given_bt: (b, t) int32, raster order; t = 0 samples whole images.
    Returns:
      (b, context) int32, beginning with `given_bt`.
    """
    batch, given = given_bt.shape
    context = model.config.context
    if sampler.top_k > model.config.vocabulary:
        raise InputError(
            f"top_k={sampler.top_k} exceeds the {model.config.vocabulary} colours of the palette; 0 keeps them all"
        )
    if given >= context:
        raise InputError(f"{given} positions are given and the image has {context}; give fewer, to leave some to draw")
    weights = decoding_weights(model.config, params)
    # `previous` is the token before the position: the start vector stands for it at position 0.
    previous_bt = jnp.concatenate([jnp.zeros((batch, 1), jnp.int32), given_bt], axis=1)
    previous_bt = nn.with_logical_constraint(previous_bt, ("batch", None))

    def draw(carry, position):
        previous_b, cache = carry
        logits_btv, cache = decode(model.config, weights, previous_b[:, None], position, cache)
        rngs_at_position_b = jax.vmap(jax.random.fold_in, (0, None))(rngs_b, position)
        token_b = sampler(rngs_at_position_b, logits_btv[:, 0])
        return (token_b, cache), token_b

    cache = init_cache(model.config, batch, given)
    if given:
        _, cache = decode(model.config, weights, previous_bt[:, :-1], 0, cache)
    previous_b, start, drawn = previous_bt[:, -1], given, []
    while start < context:
        stop = min(context, (start // SEGMENT + 1) * SEGMENT)
        carry = previous_b, _grow(cache, stop - start)
        (previous_b, cache), tokens_tb = jax.lax.scan(draw, carry, jnp.arange(start, stop))
        drawn.append(tokens_tb.T)
        start = stop
    return jnp.concatenate([given_bt, *drawn], axis=1)


def _grow(cache, positions):
    return jax.tree.map(lambda x_bhsk: jnp.pad(x_bhsk, ((0, 0), (0, 0), (0, positions), (0, 0))), cache)
