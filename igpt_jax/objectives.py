"""What is minimised: pure functions (model, params, batch, rng) -> (loss, metrics), all in nats."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from igpt_jax.config import ObjectiveConfig
from igpt_jax.model.image_gpt import ImageGPT


def autoregressive(
    model: ImageGPT, params: dict, batch: dict[str, jax.Array], rng: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean negative log-likelihood of every token given those before it (paper, equation 1).

    Args:
      batch: `tokens`, (b, t) int32 in [0, v).
      rng: unused; every objective has the same signature.
    Returns:
      The loss, a float32 scalar in nats per token, ln(v) for an untrained model; and {"nats_per_token": the same}.
    """
    del rng
    loss = token_nats(model.apply({"params": params}, batch["tokens"]), batch["tokens"]).mean()
    return loss, {"nats_per_token": loss}


def bert(
    model: ImageGPT, params: dict, batch: dict[str, jax.Array], rng: jax.Array, *, mask_rate: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean negative log-likelihood of hidden tokens given all others (paper, equation 2).

    Each position is hidden with chance `mask_rate`, independently of all others. The loss of an image is the mean
    over its hidden positions, as in the released code. An image of which nothing is hidden does not count.

    Args:
      batch: `tokens`, (b, t) int32 in [0, v).
      rng: draws the masks.
    Returns:
      The loss, a float32 scalar in nats per hidden token, ln(v) for an untrained model; and {"nats_per_token": the
      same}.
    """
    mask_bt = jax.random.bernoulli(rng, mask_rate, batch["tokens"].shape)
    nats_bt = token_nats(model.apply({"params": params}, batch["tokens"], mask_bt), batch["tokens"])
    nats_b, counted_b = mean_where(nats_bt, mask_bt)
    loss = nats_b.sum() / jnp.maximum(counted_b.sum(), 1)
    return loss, {"nats_per_token": loss}


def objective_function(config: ObjectiveConfig) -> Callable:
    """The objective that a config names, as a function (model, params, batch, rng)."""
    return autoregressive if config.name == "ar" else functools.partial(bert, mask_rate=config.mask_rate)


def token_nats(logits_btv: jax.Array, tokens_bt: jax.Array) -> jax.Array:
    """-log softmax(logits)[token] in float32 nats, (b, t)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_btv.astype(jnp.float32), tokens_bt)


def mean_where(nats_bt: jax.Array, mask_bt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean over each image's masked positions, (b,), 0 where there are none; and whether there are any, (b,)."""
    count_b = mask_bt.sum(axis=1)
    return jnp.where(mask_bt, nats_bt, 0).sum(axis=1) / jnp.maximum(count_b, 1), count_b > 0
