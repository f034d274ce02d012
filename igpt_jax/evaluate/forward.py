"""One forward pass over a whole split, in equal batches on the mesh."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import mean_where, token_nats
from igpt_jax.parallel.mesh import batch_ways, logical_axes, put_whole_batch
from igpt_jax.parallel.processes import allgather
from igpt_jax.types import Batch, HostBatch, Params


def with_masks(examples: Iterable[HostBatch], mask_rate: float, seed: int, draw: int = 0) -> Iterator[HostBatch]:
    """Adds to every batch the "mask" that a BERT model is evaluated with, (b, t) bool, True = hidden.

    Each position is hidden with probability `mask_rate`.  The mask of the i-th image is a function of (seed, i, draw).
    """
    i = 0
    for batch in examples:
        b, t = batch["tokens"].shape
        drawn_bt = np.stack([np.random.default_rng((seed, i + n, draw)).random(t) for n in range(b)])
        yield batch | {"mask": drawn_bt < mask_rate}
        i += b


def mean_nats(model: ImageGPT, params: Params, examples: Iterable[HostBatch], mesh: Mesh) -> float:
    """Returns the mean negative log-likelihood of the images, in nats per token.

    Every image counts once, on any mesh.  If the examples have masks, the mean is over the hidden tokens alone, and an
    image without any does not count.
    """
    inputs = ({name: x for name, x in batch.items() if name in ("tokens", "mask")} for batch in examples)
    results = map_batches(functools.partial(_image_nats, model, params), inputs, mesh)
    nats_b, counted_b = map(np.concatenate, zip(*results, strict=True))
    return float(nats_b[counted_b].mean())


def in_batches(arrays: HostBatch, batch_size: int) -> Iterator[HostBatch]:
    """Cuts arrays, whose first axis is the image, into batches.  The last batch may be smaller.

    Raises:
      InputError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1")
    starts = range(0, len(next(iter(arrays.values()))), batch_size)
    return ({name: x[i : i + batch_size] for name, x in arrays.items()} for i in starts)


def map_batches(function: Callable[[Batch], Any], batches: Iterable[HostBatch], mesh: Mesh) -> Iterator[Any]:
    """Yields function(batch) as NumPy arrays on every process.  Every process is given all batches.

    Each batch is split over the mesh.  A smaller batch is filled up to the size of the first, so that
    nothing is compiled again, and its results are cut back.  While the results of a batch are fetched, the devices
    compute the next one.
    """

    def fetched(outputs: Any, b: int) -> Any:
        with logical_axes(mesh):
            return jax.tree.map(lambda x: x[:b], allgather(outputs))

    size: int | None = None
    computing: tuple[Any, int] | None = None
    for batch in batches:
        b = len(next(iter(batch.values())))
        size = size or math.ceil(b / batch_ways(mesh)) * batch_ways(mesh)
        filled = put_whole_batch({name: np.resize(x, (size, *x.shape[1:])) for name, x in batch.items()}, mesh)
        before = computing
        with logical_axes(mesh):
            computing = function(filled), b
        if before:
            yield fetched(*before)
    if computing:
        yield fetched(*computing)


@functools.partial(jax.jit, static_argnums=0)
def _image_nats(model: ImageGPT, params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
    logits_btv: Any = model.apply({"params": params}, batch["tokens"], batch.get("mask"))
    nats_bt = token_nats(logits_btv, batch["tokens"])
    return mean_where(nats_bt, batch.get("mask", jnp.ones(nats_bt.shape, bool)))
