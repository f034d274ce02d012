"""One forward pass over a whole split, in equal batches on the mesh."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import mean_where, token_nats
from igpt_jax.parallel.mesh import put_whole_batch
from igpt_jax.parallel.processes import fetch


def with_masks(examples: Iterable[dict], mask_rate: float, seed: int) -> Iterator[dict]:
    """Adds to every batch the "mask" that a BERT model is evaluated with, (b, t) bool, True = hidden.

    The mask of the i-th image is a function of (seed, i): each position with chance `mask_rate`.
    """
    i = 0
    for batch in examples:
        b, t = batch["tokens"].shape
        drawn_bt = np.stack([np.random.default_rng((seed, i + n)).random(t) for n in range(b)])
        yield batch | {"mask": drawn_bt < mask_rate}
        i += b


def mean_nats(model: ImageGPT, params: dict, examples: Iterable[dict], mesh: Mesh) -> float:
    """Mean negative log-likelihood of the images, in nats per token; every image counts once, on any mesh.

    Where the examples have masks, of the hidden tokens alone; an image without any does not count.
    """
    nats_b, counted_b = map(np.concatenate, zip(*_map_batches(_image_nats, model, params, examples, mesh), strict=True))
    return float(nats_b[counted_b].mean())


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
def _image_nats(model, params, tokens_bt, mask_bt):
    nats_bt = token_nats(model.apply({"params": params}, tokens_bt, mask_bt), tokens_bt)
    return mean_where(nats_bt, jnp.ones(nats_bt.shape, bool) if mask_bt is None else mask_bt)


@functools.partial(jax.jit, static_argnames="model")
def _image_features(model, params, tokens_bt, mask_bt):
    return model.apply({"params": params}, tokens_bt, mask_bt, method="features").swapaxes(0, 1)


def _map_batches(
    function: Callable, model: ImageGPT, params: dict, examples: Iterable[dict], mesh: Mesh
) -> Iterator[jax.typing.ArrayLike]:
    """Yields function(model, params, tokens, mask) of each batch, on every process; all are given all examples.

    A smaller last batch is filled up, then cut back.
    """
    size = None
    for batch in examples:
        b = len(batch["tokens"])
        size = size or math.ceil(b / mesh.shape["data"]) * mesh.shape["data"]
        inputs = {name: batch[name] for name in ("tokens", "mask") if name in batch}
        filled = put_whole_batch({name: np.resize(x_bt, (size, x_bt.shape[1])) for name, x_bt in inputs.items()}, mesh)
        outputs = fetch(function(model, params, filled["tokens"], filled.get("mask")))
        yield jax.tree.map(lambda x, b=b: x[:b], outputs)
