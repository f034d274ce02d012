"""Sampling that yields after every row, for those who watch."""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.errors import InputError
from igpt_jax.generate.sample import Sampler, image_keys
from igpt_jax.model.decode import Cache, decode, decoding_weights, init_cache
from igpt_jax.model.image_gpt import ImageGPT, check_tokens
from igpt_jax.types import Params


def complete_by_rows(
    model: ImageGPT, params: Params, given_t: np.ndarray, *, n: int, seed: int, sampler: Sampler
) -> Iterator[np.ndarray]:
    """Samples n continuations of one image, row by row.

    The images are those of `complete`, up to ties within rounding.  It evaluates one position at a time, so `complete`
    is faster.

    Args:
      model: an autoregressive model.
      params: its parameters.
      given_t: (t,) int32, the first rows in raster order; t = 0 samples whole images.
      n: continuations, at least 1.
      seed: of the random numbers.
      sampler: how a color is sampled from its logits.

    Yields:
      (n, context) int32 after every sampled row; the tokens of rows that are not there yet are 0.

    Raises:
      InputError: the given tokens are not whole rows of the model, or leave no row to sample; or the model cannot
        sample.
    """
    config = model.config
    side, given = config.resolution, len(given_t)
    check_tokens(config, given_t[None])
    if given % side or given >= config.context:
        raise InputError(f"{given} pixels are given; give 0 to {side - 1} whole rows of {side}")
    weights = _weights(model, params)
    tokens_nt = jnp.zeros((n, config.context), jnp.int32).at[:, :given].set(given_t)
    cache, rngs_n = init_cache(config, n, config.context), image_keys(seed, n)
    for start in range(0, given, side):
        cache = _read_row(model, weights, tokens_nt, start, cache)
    for start in range(given, config.context, side):
        tokens_nt, cache = _sample_row(model, weights, sampler, rngs_n, tokens_nt, start, cache)
        yield np.asarray(tokens_nt)


_weights = jax.jit(lambda model, params: decoding_weights(model.config, params), static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _read_row(
    model: ImageGPT, weights: Params, tokens_nt: jax.Array, start: jax.typing.ArrayLike, cache: Cache
) -> Cache:
    shifted_nt = jnp.pad(tokens_nt, ((0, 0), (1, 0)))
    previous_nr = jax.lax.dynamic_slice_in_dim(shifted_nt, start, model.config.resolution, axis=1)
    _, cache = decode(model.config, weights, previous_nr, jnp.full(len(tokens_nt), start), cache)
    return cache


@functools.partial(jax.jit, static_argnums=(0, 2))
def _sample_row(
    model: ImageGPT,
    weights: Params,
    sampler: Sampler,
    rngs_n: jax.Array,
    tokens_nt: jax.Array,
    start: jax.typing.ArrayLike,
    cache: Cache,
) -> tuple[jax.Array, Cache]:
    def step(position: jax.Array, state: tuple[jax.Array, Cache]) -> tuple[jax.Array, Cache]:
        tokens_nt, cache = state
        previous_n1 = jax.lax.dynamic_slice_in_dim(tokens_nt, jnp.maximum(position - 1, 0), 1, axis=1)
        logits_n1v, cache = decode(model.config, weights, previous_n1, jnp.full(len(tokens_nt), position), cache)
        rngs_at_position_n = jax.vmap(jax.random.fold_in, (0, None))(rngs_n, position)
        drawn_n1 = sampler(rngs_at_position_n, logits_n1v[:, 0])[:, None]
        return jax.lax.dynamic_update_slice_in_dim(tokens_nt, drawn_n1, position, axis=1), cache

    return jax.lax.fori_loop(start, start + model.config.resolution, step, (tokens_nt, cache))
