"""What a fine-tuned model calls the images, and how often it is right."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.evaluate.forward import map_batches
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.types import Batch, Params


def predict(model: ImageGPT, params: dict, examples: Iterable[dict], mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest class of every image of a split, with the labels; both (b,) int32.

    Where the examples have masks, the model does not see what they hide.
    """
    results = map_batches(functools.partial(_predict, model, params), examples, mesh)
    predictions_b, labels_b = map(np.concatenate, zip(*results, strict=True))
    return predictions_b, labels_b


def percentage(predictions_b: np.ndarray, labels_b: np.ndarray) -> float:
    """Per cent of the images whose prediction is their label; of (n, b) predictions, the mean over n."""
    return 100 * float(np.mean(predictions_b == np.broadcast_to(labels_b, predictions_b.shape)))


@functools.partial(jax.jit, static_argnums=0)
def _predict(model: ImageGPT, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    outputs: Any = model.apply({"params": params}, batch["tokens"], batch.get("mask"), method="classify")
    _, logits_bc = outputs
    return logits_bc.argmax(axis=1).astype("int32"), batch["label"]
