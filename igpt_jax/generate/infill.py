"""Filling holes of any shape with a BERT model, which sees every pixel that is not hidden."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.errors import InputError
from igpt_jax.generate.complete import draw_batches
from igpt_jax.generate.sample import Sampler
from igpt_jax.model.image_gpt import ImageGPT, check_tokens
from igpt_jax.objectives import token_nats


def infill(
    model: ImageGPT,
    params: dict,
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
    """Draws n fillings of what is hidden in every image.

    First in `rounds`, the most certain pixels first; then, in `sweeps` of Gibbs sampling, every hidden pixel in turn
    is drawn anew from all others.

    Args:
      tokens_bt: (b, context) int32; what stands at hidden positions has no influence.
      hidden_bt: (b, context) bool.
      rounds: forward passes of the first filling; as many as hidden pixels fill them one by one.
      sweeps: each costs a forward pass for every hidden pixel.
    Returns:
      (b, n, context) int32, what is not hidden unchanged.
    Raises:
      InputError: an autoregressive model; nothing or another number of positions hidden.
    """
    if model.config.causal:
        raise InputError(
            "an ar model cannot fill a mask, it sees only the pixels before; give rows to complete from, "
            "or use a model trained with objective.name=bert"
        )
    if rounds < 1 or sweeps < 0:
        raise InputError(f"rounds={rounds} must be at least 1 and sweeps={sweeps} at least 0")
    if hidden_bt.shape != tokens_bt.shape or hidden_bt.dtype != bool:
        raise InputError(f"the mask is {hidden_bt.dtype} {hidden_bt.shape}; expected bool of shape {tokens_bt.shape}")
    check_tokens(model.config, np.where(hidden_bt, 0, tokens_bt))
    if not hidden_bt.any():
        raise InputError("the mask hides nothing; hide the pixels to fill, white in a PNG")
    if sampler.top_k > model.config.vocabulary:
        raise InputError(f"top_k={sampler.top_k} exceeds the {model.config.vocabulary} colors; 0 keeps them all")
    most = int(hidden_bt.sum(axis=1).max())

    def draw(rngs_b, batch):
        tokens_bt, hidden_bt = batch["tokens"], batch["hidden"]
        tokens_bt = _certain_first(model, params, _fold_in(rngs_b, 0), tokens_bt, hidden_bt, sampler, rounds)
        if sweeps:
            tokens_bt = _gibbs(model, params, _fold_in(rngs_b, 1), tokens_bt, hidden_bt, sampler, sweeps, most)
        return tokens_bt

    arrays = {"tokens": np.repeat(tokens_bt, n, axis=0), "hidden": np.repeat(hidden_bt, n, axis=0)}
    return draw_batches(draw, arrays, seed, batch_size, mesh).reshape(-1, n, tokens_bt.shape[1])


def hidden_square(resolution: int) -> np.ndarray:
    """The mask that hides the middle square of half the side: (resolution, resolution) bool."""
    hidden = np.zeros((resolution, resolution), bool)
    middle = slice(resolution // 4, resolution // 4 + max(1, resolution // 2))
    hidden[middle, middle] = True
    return hidden


@functools.partial(jax.jit, static_argnames=("model", "sampler", "rounds"))
def _certain_first(model, params, rngs_b, tokens_bt, hidden_bt, sampler, rounds):
    """Every round draws all hidden tokens and keeps the likeliest; a share cos(pi/2 round/rounds) stays hidden."""
    context, count_b = tokens_bt.shape[1], hidden_bt.sum(axis=1)
    positions_t = jnp.arange(context)

    def fill(carry, round_number):
        tokens_bt, hidden_bt = carry
        logits_btv = model.apply({"params": params}, tokens_bt, hidden_bt)
        rngs_bt = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(
            _fold_in(rngs_b, round_number), positions_t
        )
        drawn_bt = jax.vmap(sampler, in_axes=1, out_axes=1)(rngs_bt, logits_btv)
        tokens_bt = jnp.where(hidden_bt, drawn_bt, tokens_bt)
        nats_bt = jnp.where(hidden_bt, token_nats(logits_btv, drawn_bt), -jnp.inf)
        rank_bt = nats_bt.argsort(axis=1).argsort(axis=1)  # from the most certain on
        kept_hidden_b = jnp.floor(count_b * jnp.cos(math.pi / 2 * (round_number + 1) / rounds)).astype(jnp.int32)
        return (tokens_bt, rank_bt >= context - kept_hidden_b[:, None]), None

    (tokens_bt, _), _ = jax.lax.scan(fill, (tokens_bt, hidden_bt), jnp.arange(rounds))
    return tokens_bt


@functools.partial(jax.jit, static_argnames=("model", "sampler", "sweeps", "most"))
def _gibbs(model, params, rngs_b, tokens_bt, hidden_bt, sampler, sweeps, most):
    """Draws one pixel an image and step, in an order of the image's own; an image with fewer than `most` waits."""
    every_b, count_b = jnp.arange(len(tokens_bt)), hidden_bt.sum(axis=1)

    def sweep(tokens_bt, sweep_number):
        rngs_of_sweep_b = _fold_in(rngs_b, sweep_number)
        drawn_bt = jax.vmap(lambda rng: jax.random.uniform(rng, tokens_bt.shape[1:]))(rngs_of_sweep_b)
        order_bt = jnp.where(hidden_bt, drawn_bt, jnp.inf).argsort(axis=1)

        def redraw(tokens_bt, step):
            position_b = order_bt[:, step]
            logits_btv = model.apply(
                {"params": params}, tokens_bt, jnp.arange(tokens_bt.shape[1])[None] == position_b[:, None]
            )
            token_b = sampler(_fold_in(rngs_of_sweep_b, step), logits_btv[every_b, position_b])
            token_b = jnp.where(step < count_b, token_b, tokens_bt[every_b, position_b])
            return tokens_bt.at[every_b, position_b].set(token_b), None

        return jax.lax.scan(redraw, tokens_bt, jnp.arange(most))

    return jax.lax.scan(sweep, tokens_bt, jnp.arange(sweeps))[0]


def _fold_in(rngs_b, number):
    return jax.vmap(jax.random.fold_in, (0, None))(rngs_b, number)
