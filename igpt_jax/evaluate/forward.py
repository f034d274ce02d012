"""One forward pass over a whole split, in equal batches on the mesh."""

import math
from collections.abc import Callable, Iterable

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import token_nats
from igpt_jax.parallel.mesh import put_batch, replicated


def mean_nats(model: ImageGPT, params: dict, examples: Iterable[dict], mesh: Mesh) -> float:
    """Mean negative log-likelihood of the images, in nats per token; every image counts once."""

    def nats(params, tokens_bt):
        return token_nats(model.apply({"params": params}, tokens_bt), tokens_bt).mean(axis=1)

    return float(np.concatenate(list(_map_batches(nats, params, examples, mesh))).mean())


def split_features(
    model: ImageGPT, params: dict, examples: Iterable[dict], mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """The features of every layer for every image of a split, with the labels.

    Returns (l + 1, n, d) float32 and (n,) int32.
    """
    examples = list(examples)

    def features(params, tokens_bt):
        return model.apply({"params": params}, tokens_bt, method="features").swapaxes(0, 1)

    features_bld = np.concatenate(list(_map_batches(features, params, examples, mesh)))
    return features_bld.swapaxes(0, 1), np.concatenate([batch["label"] for batch in examples])


def _map_batches(function: Callable, params: dict, examples: Iterable[dict], mesh: Mesh):
    """Yields function(params, tokens) of each batch as numpy; a smaller last batch is filled up, then cut back."""
    compiled = jax.jit(function, out_shardings=replicated(mesh))
    size = None
    for batch in examples:
        tokens_bt = batch["tokens"]
        size = size or math.ceil(len(tokens_bt) / mesh.shape["data"]) * mesh.shape["data"]
        filled = np.resize(tokens_bt, (size, *tokens_bt.shape[1:]))
        yield np.asarray(compiled(params, put_batch({"tokens": filled}, mesh)["tokens"]))[: len(tokens_bt)]
