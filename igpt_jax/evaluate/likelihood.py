"""How surprising every pixel is to a model: exact likelihoods of any images."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.evaluate.forward import in_batches, map_batches
from igpt_jax.model.image_gpt import ImageGPT, check_tokens
from igpt_jax.objectives import token_nats
from igpt_jax.types import Batch, Params

HIDDEN_PARTS = 7  # a BERT model is asked about a seventh of an image at a time, near the 15 % that it is trained with


def likelihood(
    model: ImageGPT, params: Params, tokens_bt: np.ndarray, *, mesh: Mesh, batch_size: int = 32, seed: int = 0
) -> np.ndarray:
    """Computes -log p of every token, in nats.

    The mean of a row is its image's nats per token.  With an autoregressive model, the sum of a row is -log p of the
    image.  With a BERT model, every position is hidden once, in one of seven random parts, and predicted from the other
    six.

    Args:
      model: the network.
      params: of the model.
      tokens_bt: (b, context) int32 in [0, v).
      mesh: devices.
      batch_size: images in one forward pass.
      seed: draws the seven parts.

    Returns:
      (b, context) float32.

    Raises:
      InputError: a token is out of range, or the shape or the dtype does not fit, or `batch_size` is below 1.
    """
    check_tokens(model.config, tokens_bt)
    batches = in_batches({"tokens": tokens_bt}, batch_size)
    if model.config.causal:
        function = functools.partial(_autoregressive_nats, model, params)
    else:
        part_t = np.random.default_rng(seed).permutation(model.config.context) % HIDDEN_PARTS
        function = functools.partial(_bert_nats, model, params, jnp.asarray(part_t))
    return np.concatenate(list(map_batches(function, batches, mesh)))


@functools.partial(jax.jit, static_argnums=0)
def _autoregressive_nats(model: ImageGPT, params: Params, batch: Batch) -> jax.Array:
    logits_btv: Any = model.apply({"params": params}, batch["tokens"])
    return token_nats(logits_btv, batch["tokens"])


@functools.partial(jax.jit, static_argnums=0)
def _bert_nats(model: ImageGPT, params: Params, part_t: jax.Array, batch: Batch) -> jax.Array:
    tokens_bt = batch["tokens"]

    def add_part(nats_bt: jax.Array, part: jax.Array) -> tuple[jax.Array, None]:
        hidden_bt = jnp.broadcast_to(part_t == part, tokens_bt.shape)
        logits_btv: Any = model.apply({"params": params}, tokens_bt, hidden_bt)
        return jnp.where(hidden_bt, token_nats(logits_btv, tokens_bt), nats_bt), None

    return jax.lax.scan(add_part, jnp.zeros(tokens_bt.shape), jnp.arange(HIDDEN_PARTS))[0]
