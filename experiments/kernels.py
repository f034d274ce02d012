"""Sorts the operations and kernels in a trace of JAX's profiler by kind, to show where the time of a call goes."""

import collections
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax

PRODUCTS, ATTENTION = "matmuls", "attention kernels"
ARITHMETIC, MOVES = "elementwise and sums", "copies, zeros and transposes"
KERNELS = {  # kind -> words in the names of its kernels and operations
    ATTENTION: {"cudnn", "sdpa", "fmha", "flash", "splash"},
    PRODUCTS: {"cublas", "cublaslt", "cutlass", "dot", "gemm", "nvjet", "splitk", "xmma", "ynn"},
}
MOVING = {
    *("bitcast", "broadcast", "concatenate", "copy", "dynamic", "gather", "iota", "memcpy", "memcpyd", "memset"),
    *("pad", "post", "reshape", "scatter", "slice", "transpose", "update", "wrapped"),
}  # words in the names of fused operations that only move data, such as copy_slice_fusion
PLAIN = {"fusion", "clone", "remat", "loop", "input"}  # words that say nothing about the kind
CONTAINERS = {"call", "conditional", "while"}  # operations whose time is that of the operations inside them


def busy_shares(run: Callable[[], object]) -> tuple[dict[str, float], dict[str, float]]:
    """Traces one call.

    Args:
      run: the function to call; it must wait for its results.

    Returns:
      For each kind its share of the time of all operations, over all threads or streams; and the same for the twelve
      operations that take the most time.  The largest come first.
    """
    with tempfile.TemporaryDirectory() as directory:
        with jax.profiler.trace(directory):
            run()
        (trace,) = pathlib.Path(directory).rglob("*.xplane.pb")
        operations: Any = collections.Counter()  # of floats
        kinds: Any = collections.Counter()
        for name, nanoseconds in _operations(trace):
            if kind := _kind(name):
                operations[name] += nanoseconds
                kinds[kind] += nanoseconds
    return _shares(kinds.most_common(), kinds.total()), _shares(operations.most_common(12), kinds.total())


def _shares(counts: list[tuple[str, float]], total: float) -> dict[str, float]:
    return {name: nanoseconds / total for name, nanoseconds in counts}


def _operations(trace: pathlib.Path) -> Iterator[tuple[str, float]]:
    """Yields names and nanoseconds: of a GPU's kernels, a TPU's operations, or the operations of a CPU's threads."""
    for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
        for line in plane.lines:
            if plane.name.startswith("/device:"):
                if line.name.startswith("Stream") or line.name == "XLA Ops":
                    yield from ((event.name, event.duration_ns) for event in line.events)
            elif jax.default_backend() == "cpu":
                for event in line.events:
                    if not event.name.startswith("end: ") and any(name == "hlo_op" for name, _ in event.stats):
                        yield event.name, event.duration_ns


def _kind(operation: str) -> str | None:
    """The kind of an operation by its name; None for one that only contains others."""
    words = set(re.findall("[a-z]+", operation.lower())) - PLAIN
    for kind, its_words in KERNELS.items():
        if words & its_words:
            return kind
    if words <= CONTAINERS:
        return None
    return MOVES if words <= MOVING else ARITHMETIC
