"""Sampling left to right under one jit, with a cache that grows as the image does."""

import dataclasses
import functools

import flax
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


@flax.struct.dataclass
class Drawn:
    """Images, and how they came about: in which pass of the network each token was accepted."""

    tokens: jax.Array  # (..., context) int32
    passes: jax.Array  # (..., context) int32, from 1 on in raster order; 0 where the token was given


@functools.partial(jax.jit, static_argnames=("model", "sampler", "window"))
def sample(
    model: ImageGPT,
    params: dict,
    rngs_b: jax.Array,
    given_bt: jax.Array,
    sampler: Sampler = Sampler(),
    window: int = 1,
) -> Drawn:
    """Continues every image from its given first tokens to the last position.

    Args:
      rngs_b: (b,) keys, from `image_keys`.
      given_bt: (b, t) int32, raster order; t = 0 samples whole images.
      window: positions a pass of the network evaluates; above 1, all but the first follow guesses.
    Returns:
      Tokens (b, context), beginning with `given_bt`.
    """
    batch, given = given_bt.shape
    context, row = model.config.context, model.config.resolution
    if sampler.top_k > model.config.vocabulary:
        raise InputError(
            f"top_k={sampler.top_k} exceeds the {model.config.vocabulary} colours of the palette; 0 keeps them all"
        )
    if given >= context:
        raise InputError(f"{given} positions are given and the image has {context}; give fewer, to leave some to draw")
    window = min(window, context - given)
    weights = decoding_weights(model.config, params)
    start_bt = nn.with_logical_constraint(given_bt, ("batch", None))
    cache = init_cache(model.config, batch, given)
    if given:
        previous_bt = jnp.pad(given_bt[:, :-1], ((0, 0), (1, 0)))
        _, cache = decode(model.config, weights, previous_bt, 0, cache)

    def advance(state):
        """One pass over each image's window."""
        tokens_bt, passes_bt, position_b, number, cache = state
        start_b = jnp.minimum(position_b, context - window)
        at_bw = start_b[:, None] + jnp.arange(window)
        guessed_bw = _read(tokens_bt, start_b, window)
        previous_bw = jnp.concatenate([_read(tokens_bt, jnp.maximum(start_b - 1, 0), 1), guessed_bw[:, :-1]], axis=1)
        logits_bwv, cache = decode(model.config, weights, previous_bw, start_b, cache)
        rngs_bw = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(rngs_b, at_bw)
        drawn_bw = sampler(rngs_bw.reshape(-1), logits_bwv.reshape(batch * window, -1)).reshape(batch, window)
        new_bw = at_bw >= position_b[:, None]
        drawn_bw = jnp.where(new_bw, drawn_bw, guessed_bw)
        wrong_bw = drawn_bw != guessed_bw
        accepted_bw = new_bw & (jnp.cumsum(wrong_bw, axis=1) - wrong_bw == 0)
        tokens_bt = _write(_write(tokens_bt, drawn_bw, start_b + row), drawn_bw, start_b)
        passes_bw = jnp.where(accepted_bw, number, _read(passes_bt, start_b, window))
        passes_bt = _write(passes_bt, passes_bw, start_b)
        return tokens_bt, passes_bt, position_b + accepted_bw.sum(axis=1), number + 1, cache

    tokens_bt = jnp.zeros((batch, context + row), jnp.int32)
    for place in (row, 0):
        tokens_bt = jax.lax.dynamic_update_slice_in_dim(tokens_bt, start_bt, place, axis=1)
    state = tokens_bt, jnp.zeros((batch, context), jnp.int32), jnp.full(batch, given), jnp.int32(1), cache
    for length in [*range((given // SEGMENT + 1) * SEGMENT, context, SEGMENT), context]:
        *state, cache = state
        state = *state, _grow(cache, length)

        def unfinished(state, length=length):
            position_b = state[2]
            return position_b.min() < context if length == context else position_b.max() + window <= length

        state = jax.lax.while_loop(unfinished, advance, state)
    return Drawn(state[0][:, :context], state[1])


def _read(x_bt, start_b, size):
    return jax.vmap(lambda x_t, start: jax.lax.dynamic_slice_in_dim(x_t, start, size))(x_bt, start_b)


def _write(x_bt, new_bw, start_b):
    return jax.vmap(lambda x_t, new_w, start: jax.lax.dynamic_update_slice_in_dim(x_t, new_w, start, 0))(x_bt, new_bw, start_b)


def _grow(cache, length):
    return jax.tree.map(lambda x_bhsk: jnp.pad(x_bhsk, ((0, 0), (0, 0), (0, length - x_bhsk.shape[2]), (0, 0))), cache)
