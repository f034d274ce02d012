"""What is minimized: pure functions (model, params, batch, rng) -> (loss, metrics), all in nats but the accuracy."""

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
    loss = generative_nats(model.apply({"params": params}, batch["tokens"]), batch["tokens"])
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
    loss = generative_nats(model.apply({"params": params}, batch["tokens"], mask_bt), batch["tokens"], mask_bt)
    return loss, {"nats_per_token": loss}


def joint(
    model: ImageGPT, params: dict, batch: dict[str, jax.Array], rng: jax.Array, *, config: ObjectiveConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """generation_weight · L_gen + class_weight · L_clf, both of one forward pass (paper, section 2.3).

    L_gen is that of `autoregressive` or `bert`, with the masks drawn alike, and the class head sees the image as they
    do; L_clf is the mean negative log-likelihood of the labels.  Where a weight is 0, the head that only its loss
    reads has a gradient of exactly 0.

    Args:
      batch: `tokens`, (b, t) int32 in [0, v), and `label`, (b,) int32 in [0, classes).
      rng: draws the masks of "bert".
    Returns:
      The loss, a float32 scalar in nats; and {"nats_per_token": L_gen, "class_nats": L_clf, ln(classes) for a fresh
      head, "accuracy": per cent of the images}.
    """
    tokens_bt, label_b = batch["tokens"], batch["label"]
    mask_bt = None if config.name == "ar" else jax.random.bernoulli(rng, config.mask_rate, tokens_bt.shape)
    logits_btv, logits_bc = model.apply({"params": params}, tokens_bt, mask_bt, method="classify")
    nats = generative_nats(logits_btv, tokens_bt, mask_bt)
    class_nats = token_nats(logits_bc, label_b).mean()
    accuracy = 100 * (logits_bc.argmax(axis=1) == label_b).mean(dtype=jnp.float32)
    terms = ((config.generation_weight, nats), (config.class_weight, class_nats))
    loss = sum(weight * term for weight, term in terms if weight)  # what has no weight has no backward pass
    return loss, {"nats_per_token": nats, "class_nats": class_nats, "accuracy": accuracy}


def objective_function(config: ObjectiveConfig) -> Callable:
    """The objective that a config names, as a function (model, params, batch, rng)."""
    if config.class_weight:
        return functools.partial(joint, config=config)
    return autoregressive if config.name == "ar" else functools.partial(bert, mask_rate=config.mask_rate)


def generative_nats(logits_btv: jax.Array, tokens_bt: jax.Array, mask_bt: jax.Array | None = None) -> jax.Array:
    """The mean of `token_nats` over all tokens, or over images of the mean over the masked ones; a scalar."""
    nats_bt = token_nats(logits_btv, tokens_bt)
    if mask_bt is None:
        return nats_bt.mean()
    nats_b, counted_b = mean_where(nats_bt, mask_bt)
    return nats_b.sum() / jnp.maximum(counted_b.sum(), 1)


def token_nats(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """-log softmax(logits)[token] in float32 nats: of (b, t, v) and (b, t), or of classes (b, c) and labels (b,)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), tokens)


def mean_where(nats_bt: jax.Array, mask_bt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean over each image's masked positions, (b,), 0 where there are none; and whether there are any, (b,)."""
    count_b = mask_bt.sum(axis=1)
    return jnp.where(mask_bt, nats_bt, 0).sum(axis=1) / jnp.maximum(count_b, 1), count_b > 0
