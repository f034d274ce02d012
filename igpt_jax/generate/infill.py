"""Infilling of hidden pixels, in any arrangement, with a BERT model, which sees all pixels that are not hidden."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.errors import InputError
from igpt_jax.generate.complete import draw_batches
from igpt_jax.generate.sample import Sampler
from igpt_jax.model.image_gpt import ImageGPT, check_tokens
from igpt_jax.objectives import token_nats
from igpt_jax.types import Batch, Params


def infill(
    model: ImageGPT,
    params: Params,
    tokens_bt: np.ndarray,
    hidden_bt: np.ndarray,
    *,
    n: int,
    seed: int,
    mesh: Mesh,
    sampler: Sampler = Sampler(),  # noqa: B008 - frozen
    rounds: int = 8,
    sweeps: int = 0,
    batch_size: int = 64,
) -> np.ndarray:
    """Samples n fillings of the hidden pixels of every image.

    The hidden pixels are first filled in `rounds` forward passes, the most certain pixels first. Then, in each of
    `sweeps` of Gibbs sampling, every hidden pixel in turn is sampled again from all other pixels.

    Args:
      model: a BERT model.
      params: its parameters.
      tokens_bt: (b, context) int32; the values at hidden positions have no influence.
      hidden_bt: (b, context) bool, True = hidden.
      n: fillings of each image.
      seed: of the random numbers; each filling has its own key, see `image_keys`.
      mesh: devices, over which the images are split.
      sampler: how a color is sampled from its logits.
      rounds: forward passes of the first filling, at least 1; each fills some of the hidden pixels, fewer of
        them in the earlier rounds.
      sweeps: Gibbs sweeps, at least 0; each costs one forward pass per hidden pixel.
      batch_size: images filled at once, at least 1; it does not change the images.

    Returns:
      (b, n, context) int32; tokens that are not hidden are unchanged.

    Raises:
      InputError: the model is autoregressive, no position is hidden, the shapes differ, or an option is out of range.
    """
    if model.config.causal:
        raise InputError(
            "an ar model cannot fill a mask, since it sees only earlier pixels; give rows to complete from, "
            "or use a model trained with objective.name=bert"
        )
    if rounds < 1 or sweeps < 0:
        raise InputError(f"rounds={rounds} must be at least 1 and sweeps={sweeps} at least 0")
    if hidden_bt.shape != tokens_bt.shape or hidden_bt.dtype != bool:
        raise InputError(f"the mask is {hidden_bt.dtype} {hidden_bt.shape}; expected bool of shape {tokens_bt.shape}")
    check_tokens(model.config, np.where(hidden_bt, 0, tokens_bt))
    if not hidden_bt.any():
        raise InputError("the mask hides nothing; hide the pixels to fill, white in a PNG")
    sampler.check(model.config.vocabulary)
    most = int(hidden_bt.sum(axis=1).max())

    def draw(rngs_b: jax.Array, batch: Batch) -> jax.Array:
        tokens_bt, hidden_bt = batch["tokens"], batch["hidden"]
        tokens_bt = _certain_first(model, params, _fold_in(rngs_b, 0), tokens_bt, hidden_bt, sampler, rounds)
        if sweeps:
            tokens_bt = _gibbs(model, params, _fold_in(rngs_b, 1), tokens_bt, hidden_bt, sampler, sweeps, most)
        return tokens_bt

    arrays = {"tokens": np.repeat(tokens_bt, n, axis=0), "hidden": np.repeat(hidden_bt, n, axis=0)}
    return draw_batches(draw, arrays, seed, batch_size, mesh).reshape(-1, n, tokens_bt.shape[1])


def hidden_square(resolution: int) -> np.ndarray:
    """Returns the mask that hides the central square of half the side: (resolution, resolution) bool."""
    hidden = np.zeros((resolution, resolution), bool)
    middle = slice(resolution // 4, resolution // 4 + max(1, resolution // 2))
    hidden[middle, middle] = True
    return hidden


@functools.partial(jax.jit, static_argnames=("model", "sampler", "rounds"))
def _certain_first(
    model: ImageGPT,
    params: Params,
    rngs_b: jax.Array,
    tokens_bt: jax.Array,
    hidden_bt: jax.Array,
    sampler: Sampler,
    rounds: int,
) -> jax.Array:
    """Samples all hidden tokens in every round, and keeps the likeliest of them.

    After round r, from 1 on, a fraction cos(pi/2 · r/rounds) of the positions is still hidden: the cosine schedule of
    MaskGIT (Chang et al. 2022, arXiv:2202.04200).
    """
    context, count_b = tokens_bt.shape[1], hidden_bt.sum(axis=1)
    positions_t = jnp.arange(context)

    def fill(carry: tuple[jax.Array, jax.Array], round_number: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        tokens_bt, hidden_bt = carry
        logits_btv: Any = model.apply({"params": params}, tokens_bt, hidden_bt)
        rngs_bt = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(
            _fold_in(rngs_b, round_number), positions_t
        )
        drawn_bt = jax.vmap(sampler, in_axes=1, out_axes=1)(rngs_bt, logits_btv)
        tokens_bt = jnp.where(hidden_bt, drawn_bt, tokens_bt)
        # Known positions rank first, then the sampled ones from the most certain on, and the last ones stay hidden.
        nats_bt = jnp.where(hidden_bt, token_nats(logits_btv, drawn_bt), -jnp.inf)
        rank_bt = nats_bt.argsort(axis=1).argsort(axis=1)
        still_hidden_b = jnp.floor(count_b * jnp.cos(math.pi / 2 * (round_number + 1) / rounds)).astype(jnp.int32)
        return (tokens_bt, rank_bt >= context - still_hidden_b[:, None]), None

    (tokens_bt, _), _ = jax.lax.scan(fill, (tokens_bt, hidden_bt), jnp.arange(rounds))
    return tokens_bt


@functools.partial(jax.jit, static_argnames=("model", "sampler", "sweeps", "most"))
def _gibbs(
    model: ImageGPT,
    params: Params,
    rngs_b: jax.Array,
    tokens_bt: jax.Array,
    hidden_bt: jax.Array,
    sampler: Sampler,
    sweeps: int,
    most: int,
) -> jax.Array:
    """Samples one hidden pixel of each image per step, in a random order of the image's own.

    A sweep takes `most` steps, the largest number of hidden pixels in an image. Images with fewer do not change in the
    last steps.
    """
    every_b, count_b = jnp.arange(len(tokens_bt)), hidden_bt.sum(axis=1)

    def sweep(tokens_bt: jax.Array, sweep_number: jax.Array) -> tuple[jax.Array, None]:
        rngs_of_sweep_b = _fold_in(rngs_b, sweep_number)
        uniform_bt = jax.vmap(lambda rng: jax.random.uniform(rng, tokens_bt.shape[1:]))(rngs_of_sweep_b)
        order_bt = jnp.where(hidden_bt, uniform_bt, jnp.inf).argsort(axis=1)  # hidden positions first, at random

        def resample(tokens_bt: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
            position_b = order_bt[:, step]
            logits_btv: Any = model.apply(
                {"params": params}, tokens_bt, jnp.arange(tokens_bt.shape[1])[None] == position_b[:, None]
            )
            token_b = sampler(_fold_in(rngs_of_sweep_b, step), logits_btv[every_b, position_b])
            token_b = jnp.where(step < count_b, token_b, tokens_bt[every_b, position_b])
            return tokens_bt.at[every_b, position_b].set(token_b), None

        return jax.lax.scan(resample, tokens_bt, jnp.arange(most))

    return jax.lax.scan(sweep, tokens_bt, jnp.arange(sweeps))[0]


def _fold_in(rngs_b: jax.Array, number: jax.Array | int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(rngs_b, number)
