"""Training objectives: pure functions (model, params, batch, rng) -> (loss, metrics)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from igpt_jax.config import ObjectiveConfig
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.types import Batch, Params

# The loss, a float32 scalar in nats, and float32 scalars to log beside it.
LossAndMetrics = tuple[jax.Array, dict[str, jax.Array]]
Objective = Callable[[ImageGPT, Params, Batch, jax.Array], LossAndMetrics]


def autoregressive(model: ImageGPT, params: Params, batch: Batch, rng: jax.Array) -> LossAndMetrics:
    """Mean negative log-likelihood of every token given those before it.

    Args:
      model: a causal model.
      params: its parameters.
      batch: `tokens`, (b, t) int32 in [0, v).
      rng: unused; every objective has the same signature.

    Returns:
      The loss, a float32 scalar in nats per token, about ln(v) for an untrained model; and the metrics
      {"nats_per_token": the same scalar}.

    Reference:
      The paper, section 2.1, equation 1.
    """
    del rng
    logits_btv: Any = model.apply({"params": params}, batch["tokens"])  # Flax does not know the type
    loss = generative_nats(logits_btv, batch["tokens"])
    return loss, {"nats_per_token": loss}


def bert(model: ImageGPT, params: Params, batch: Batch, rng: jax.Array, *, mask_rate: float) -> LossAndMetrics:
    """Mean negative log-likelihood of hidden tokens given all others.

    Each position is hidden with probability `mask_rate`, independently of all others. The loss of an image is the mean
    over its hidden positions, as in the released code. An image without hidden positions does not count.

    Args:
      model: a BERT model.
      params: its parameters.
      batch: `tokens`, (b, t) int32 in [0, v).
      rng: key that the masks are sampled with.
      mask_rate: probability in (0, 1] that a position is hidden.

    Returns:
      The loss, a float32 scalar in nats per hidden token, about ln(v) for an untrained model; and the metrics
      {"nats_per_token": the same scalar}.

    Reference:
      The paper, section 2.1, equation 2.
    """
    mask_bt = jax.random.bernoulli(rng, mask_rate, batch["tokens"].shape)
    logits_btv: Any = model.apply({"params": params}, batch["tokens"], mask_bt)
    loss = generative_nats(logits_btv, batch["tokens"], mask_bt)
    return loss, {"nats_per_token": loss}


def joint(model: ImageGPT, params: Params, batch: Batch, rng: jax.Array, *, config: ObjectiveConfig) -> LossAndMetrics:
    """generation_weight · L_gen + class_weight · L_clf, both from one forward pass.

    L_gen is the loss of `autoregressive` or `bert`, with masks sampled in the same way. L_clf is the mean negative
    log-likelihood of the labels; the class head reads the same, possibly masked, forward pass. If a weight is 0, the
    head that only the loss of that weight reads has a gradient of exactly 0.

    Args:
      model: a model with a token head and a class head.
      params: its parameters.
      batch: `tokens`, (b, t) int32 in [0, v), and `label`, (b,) int32 in [0, classes).
      rng: key that the masks of "bert" are sampled with.
      config: the two weights, and the name and mask rate of the generative loss.

    Returns:
      The loss, a float32 scalar in nats; and the metrics {"nats_per_token": L_gen, "class_nats": L_clf, "accuracy": per
      cent of the images that are classified correctly}. L_clf is ln(classes) for a zero-initialized class head.

    Reference:
      The paper, section 2.3.
    """
    tokens_bt, label_b = batch["tokens"], batch["label"]
    mask_bt = None if config.name == "ar" else jax.random.bernoulli(rng, config.mask_rate, tokens_bt.shape)
    outputs: Any = model.apply({"params": params}, tokens_bt, mask_bt, method="classify")
    logits_btv, logits_bc = outputs
    nats = generative_nats(logits_btv, tokens_bt, mask_bt)
    class_nats = token_nats(logits_bc, label_b).mean()
    accuracy = 100 * (logits_bc.argmax(axis=1) == label_b).mean(dtype=jnp.float32)
    terms = ((config.generation_weight, nats), (config.class_weight, class_nats))
    # A term with weight 0 is left out of the sum, since it would still cost a backward pass.
    loss = sum((weight * term for weight, term in terms if weight), start=jnp.float32(0))
    return loss, {"nats_per_token": nats, "class_nats": class_nats, "accuracy": accuracy}


def objective_function(config: ObjectiveConfig) -> Objective:
    """Returns the objective that a config chooses."""
    if config.class_weight:
        return functools.partial(joint, config=config)
    return autoregressive if config.name == "ar" else functools.partial(bert, mask_rate=config.mask_rate)


def generative_nats(logits_btv: jax.Array, tokens_bt: jax.Array, mask_bt: jax.Array | None = None) -> jax.Array:
    """Averages `token_nats` over a batch, into a float32 scalar.

    Args:
      logits_btv: (b, t, v), any float type.
      tokens_bt: (b, t) integers in [0, v).
      mask_bt: (b, t) bool, True = hidden. With a mask, the result is the mean over the images of each image's mean over
        its hidden positions; images without hidden positions do not count. None: the mean over all positions.
    """
    nats_bt = token_nats(logits_btv, tokens_bt)
    if mask_bt is None:
        return nats_bt.mean()
    nats_b, counted_b = mean_where(nats_bt, mask_bt)
    return nats_b.sum() / jnp.maximum(counted_b.sum(), 1)


def token_nats(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Computes -log softmax(logits)[token] in float32 nats, over the last axis of the logits.

    Args:
      logits: (b, t, v) token logits, or (b, c) class logits; any float type.
      tokens: (b, t) tokens in [0, v), or (b,) labels in [0, c); integers.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), tokens)


def mean_where(nats_bt: jax.Array, mask_bt: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Averages over each image's masked positions.

    Returns:
      The means, (b,) float32, which are 0 for images without masked positions; and whether an image has any, (b,) bool.
    """
    count_b = mask_bt.sum(axis=1)
    return jnp.where(mask_bt, nats_bt, 0).sum(axis=1) / jnp.maximum(count_b, 1), count_b > 0
