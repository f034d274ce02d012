"""One forward pass over a whole split, in equal batches on the mesh."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import token_nats
from igpt_jax.parallel.mesh import put_whole_batch
from igpt_jax.parallel.processes import fetch


def mean_nats(model: ImageGPT, params: dict, examples: Iterable[dict], mesh: Mesh) -> float:
    """Mean negative log-likelihood of the images, in nats per token; every image counts once, on any mesh."""
    return float(np.concatenate(list(_map_batches(_image_nats, model, params, examples, mesh))).mean())


def split_features(
    model: ImageGPT, params: dict, examples: Iterable[dict], mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """The features of every layer for every image of a split, with the labels.

    Returns (l + 1, n, d) float32 and (n,) int32.
    """
    examples = list(examples)
    features_bld = np.concatenate(list(_map_batches(_image_features, model, params, examples, mesh)))
    return features_bld.swapaxes(0, 1), np.concatenate([batch["label"] for batch in examples])


@functools.partial(jax.jit, static_argnames="model")
def _image_nats(model, params, tokens_bt):
    return token_nats(model.apply({"params": params}, tokens_bt), tokens_bt).mean(axis=1)


@functools.partial(jax.jit, static_argnames="model")
def _image_features(model, params, tokens_bt):
    return model.apply({"params": params}, tokens_bt, method="features").swapaxes(0, 1)


def _map_batches(
    function: Callable, model: ImageGPT, params: dict, examples: Iterable[dict], mesh: Mesh
) -> Iterator[np.ndarray]:
    """Yields function(model, params, tokens) of each batch, on every process; all are given all examples.

    A smaller last batch is filled up, then cut back.
    """
    size = None
    for batch in examples:
        tokens_bt = batch["tokens"]
        size = size or math.ceil(len(tokens_bt) / mesh.shape["data"]) * mesh.shape["data"]
        filled = put_whole_batch({"tokens": np.resize(tokens_bt, (size, tokens_bt.shape[1]))}, mesh)
        yield fetch(function(model, params, filled["tokens"]))[: len(tokens_bt)]
