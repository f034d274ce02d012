"""Completing images of which the upper rows are given."""

import numpy as np

from igpt_jax.errors import InputError
from igpt_jax.generate.sample import Sampler, image_keys, sample
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.processes import fetch


def complete(
    model: ImageGPT,
    params: dict,
    tokens_bt: np.ndarray,
    *,
    given: int,
    n: int,
    seed: int,
    sampler: Sampler = Sampler(),  # noqa: B008 - frozen
) -> np.ndarray:
    """Draws n completions of every image from its first `given` pixels in raster order.

    tokens_bt: (b, context) int32.  Returns (b, n, context) int32, the given pixels unchanged.
    """
    if not 0 < given < model.config.context:
        raise InputError(
            f"{given} pixels are given; it takes 1 to {model.config.context - 1} of {model.config.context}"
        )
    given_bt = np.repeat(tokens_bt[:, :given], n, axis=0)
    completed_bt = sample(model, params, image_keys(seed, len(given_bt)), given_bt, sampler)
    return fetch(completed_bt).reshape(len(tokens_bt), n, -1)
