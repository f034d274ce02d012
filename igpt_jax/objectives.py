"""What is minimised: pure functions (model, params, batch, rng) -> (loss, metrics), all in nats."""

import jax
import jax.numpy as jnp
import optax

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


OBJECTIVES = {"ar": autoregressive}


def token_nats(logits_btv: jax.Array, tokens_bt: jax.Array) -> jax.Array:
    """-log softmax(logits)[token] in float32 nats, (b, t)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_btv.astype(jnp.float32), tokens_bt)
