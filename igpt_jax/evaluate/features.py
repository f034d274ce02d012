"""Features of every layer for every image of a split: one forward pass, kept in memory or on disk."""

import dataclasses
import functools
import itertools
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.evaluate.forward import map_batches
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.types import Batch, HostBatch, Params

_CHUNK = 4096  # rows of one layer that are read from disk at once


def split_features(
    model: ImageGPT,
    params: Params,
    examples: Iterable[HostBatch],
    mesh: Mesh,
    *,
    memory: float = math.inf,
    directory: os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Computes the features of every layer for every image of a split, in one forward pass.

    Args:
      model: the network.
      params: of the model.
      examples: batches with "tokens" (b, t) int32 and "label" (b,) int32; with "mask" (b, t) bool for BERT models.
      mesh: devices.
      memory: bytes of features above which they are kept on disk.
      directory: where, as in `stored`.

    Returns:
      The features, (l + 1, n, d) float32, and the labels, (n,) int32.
    """
    labels = []

    def inputs() -> Iterator[HostBatch]:
        for batch in examples:
            labels.append(batch["label"])
            yield {name: batch[name] for name in ("tokens", "mask") if name in batch}

    batches_bld = map_batches(functools.partial(image_features, model, params), inputs(), mesh)
    features_bld = stored(batches_bld, memory, directory)
    return features_bld.swapaxes(0, 1), np.concatenate(labels)


@functools.partial(jax.jit, static_argnums=0)
def image_features(model: ImageGPT, params: Params, batch: Batch) -> jax.Array:
    """Returns the features of a batch with "tokens" and perhaps "mask", images first: (b, l + 1, d) float32."""
    features_lbd: Any = model.apply({"params": params}, batch["tokens"], batch.get("mask"), method="features")
    return features_lbd.swapaxes(0, 1)


def stored(batches: Iterator[np.ndarray], memory: float, directory: os.PathLike[str] | None) -> np.ndarray:
    """Concatenates batches, in memory or, if they have more than `memory` bytes, in a read-only file.

    The file has no name, so it disappears with the array, or with the process, however that ends.

    Args:
      batches: arrays of images, images first.
      memory: bytes above which the array is a file.
      directory: where the file is made; None is the system's directory for temporary files.
    """
    held, size = [], 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size > memory:
            return _stored_on_disk(itertools.chain(held, batches), directory)
    return np.concatenate(held)


def _stored_on_disk(batches: Iterator[np.ndarray], directory: os.PathLike[str] | None) -> np.ndarray:
    images = 0
    with tempfile.TemporaryFile(dir=None if directory is None else os.fspath(directory)) as file:
        for batch in batches:
            file.write(np.ascontiguousarray(batch).view(np.uint8).data)
            images += len(batch)
        file.flush()
        return np.memmap(file, batch.dtype, mode="r", shape=(images, *batch.shape[1:]))


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of labeled features, which a probe is fitted to or which it reads."""

    features_lbd: np.ndarray  # floats of any type
    labels_b: np.ndarray
    rows: np.ndarray  # numbers of the rows that count, in their order

    @classmethod
    def all(cls, features_lbd: np.ndarray, labels_b: np.ndarray) -> "Rows":
        """Every row."""
        return cls(features_lbd, labels_b, np.arange(len(labels_b)))

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, places: np.ndarray) -> "Rows":
        """Returns some of these rows, by their places among them."""
        return dataclasses.replace(self, rows=self.rows[places])

    @property
    def labels(self) -> np.ndarray:
        """The labels of these rows, (b,)."""
        return self.labels_b[self.rows]

    def read(self, layers: Sequence[int], places: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Returns the features of these rows, or of those at some places: k layers side by side, (b, k * d)."""
        rows = self.rows[places]
        return np.concatenate([self.features_lbd[layer, rows] for layer in layers], axis=1)

    def chunks(self) -> Iterator[slice]:
        """Yields the places of all rows, in parts that fit in memory."""
        return (slice(start, start + _CHUNK) for start in range(0, len(self), _CHUNK))

    def standardization(self, layers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the mean and 1 / standard deviation of every feature over these rows, (k * d,) float32 each.

        The second is 0 for a constant feature.  Sums are accumulated in float64, relative to the first row.
        """
        first_1d = self.read(layers, slice(1)).astype(np.float64)
        total_d = squares_d = np.zeros(first_1d.shape[1])
        for places in self.chunks():
            change_bd = self.read(layers, places) - first_1d
            total_d, squares_d = total_d + change_bd.sum(axis=0), squares_d + (change_bd**2).sum(axis=0)
        mean_d = total_d / len(self)
        variance_d = squares_d / len(self) - mean_d**2
        scale_d = np.divide(1, np.sqrt(np.abs(variance_d)), out=np.zeros_like(mean_d), where=variance_d > 0)
        return (first_1d[0] + mean_d).astype(np.float32), scale_d.astype(np.float32)
