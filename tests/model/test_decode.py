"""Decoding with a cache against the full forward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.model import decode as decoding
from igpt_jax.model.decode import decoding_weights, grow_cache, init_cache
from tests.model.test_image_gpt import apply, draw_params

TINY = ig.ModelConfig(layers=2, width=16, heads=2, resolution=4, vocabulary=5)
decode = jax.jit(decoding.decode, static_argnums=0)


@pytest.mark.parametrize("window", [1, 3])
def test_images_at_different_positions_get_the_logits_of_the_full_forward(window):
    """And what the cache holds of wrong guesses, beyond the positions decoded, has no influence."""
    params, rng = draw_params(TINY), np.random.default_rng(0)
    weights, tokens_bt = decoding_weights(TINY, params), rng.integers(0, TINY.vocabulary, (3, TINY.context))
    expected_btv, previous_bt = apply(TINY, params, tokens_bt), np.pad(tokens_bt, ((0, 0), (1, 0)))
    _, cache = decode(TINY, weights, rng.permuted(previous_bt[:, :-1], axis=1), jnp.zeros(3, int), _room(16))
    start_b = np.zeros(3, int)
    while (start_b + window <= TINY.context).all():
        at_bw = start_b[:, None] + np.arange(window)
        logits_bwv, cache = decode(TINY, weights, np.take_along_axis(previous_bt, at_bw, 1), start_b, cache)
        np.testing.assert_allclose(logits_bwv, np.take_along_axis(expected_btv, at_bw[..., None], 1), atol=1e-5)
        start_b = start_b + np.arange(1, 4) % (window + 1)  # each at its own pace


def _room(length):
    return grow_cache(init_cache(TINY, 3, 0), length)
