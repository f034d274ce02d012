"""Batches on their way to the devices, ahead of the step that needs them."""

import collections
import time
from collections.abc import Iterator

from jax.sharding import Mesh

from igpt_jax.parallel.mesh import put_batch
from igpt_jax.types import Batch, HostBatch

_READY = 2  # batches on the devices when the loop takes one: the other crosses over during the step


class DeviceBatches:
    """An iterator of global arrays on the mesh, one transfer ahead of the loop.

    Attributes:
      waited: seconds that the loop has spent waiting for the input so far, an upper bound of what the input cost it,
        since the devices may have been busy meanwhile.
    """

    def __init__(self, batches: Iterator[HostBatch], mesh: Mesh):
        self.waited = 0.0
        self._batches, self._mesh = batches, mesh
        self._ready: collections.deque[Batch] = collections.deque()

    def __iter__(self) -> "DeviceBatches":
        return self

    def __next__(self) -> Batch:
        while len(self._ready) < _READY:
            start = time.perf_counter()
            batch = next(self._batches, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                break
            self._ready.append(put_batch(batch, self._mesh))
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()
