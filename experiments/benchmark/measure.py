"""Timing in turns: what a comparison is, and how it is made and described."""

import contextlib
import dataclasses
import multiprocessing
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata

from igpt_jax.memory import keep_freed_memory

ROUNDS = 5
SECONDS = "s, less is better"  # a unit
PACKAGES = ("jax", "jaxlib", "flax", "tensorflow-cpu", "torch", "transformers", "scikit-learn", "numpy")


@dataclasses.dataclass(frozen=True)
class Result:
    """One measurement: medians over the rounds, beside a peer if there is one; more is better unless `unit` says."""

    name: str
    unit: str
    ours: float
    peer_name: str | None = None
    peer: float | None = None
    ratios: tuple[float, ...] = ()  # ours over the peer's, in each round
    remark: str = ""  # what was checked to be equal, or what bounds it

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    def describe(self) -> str:
        """One or two lines of text."""
        if not self.ratios:
            return f"{self.name}: {self.ours:,.4g} {self.unit}\n  {self.remark}"
        rounds = ", ".join(f"{ratio:.3g}" for ratio in self.ratios)
        return (
            f"{self.name}: {self.ours:,.4g} {self.unit} against {self.peer:,.4g} of {self.peer_name}\n"
            f"  {self.ratio:.3g} times ({rounds}); {self.remark}"
        )


class Elsewhere:
    """A function that is made, and then called, in a process of its own: no side's memory or threads touch another's.

    make: of a module, called with the arguments; what they are and what the function returns can be pickled.
    """

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments):
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        context.Process(target=_serve, args=(there, make, arguments), daemon=True).start()
        there.close()

    def __call__(self) -> object:
        """Raises EOFError where the process has ended; it has said why."""
        self._here.send(None)
        return self._here.recv()


def _serve(connection, make, arguments):
    keep_freed_memory()
    function = make(*arguments)
    with contextlib.suppress(EOFError):  # the measuring process has ended
        while True:
            connection.recv()
            connection.send(function())


@dataclasses.dataclass(frozen=True)
class Side:
    """A function to time, and how much work one call of it does."""

    run: Callable[[], object]
    work: float


def compare(
    name: str, unit: str, ours: Side, peers: dict[str, Side], remark: str, *, rounds: int = ROUNDS, warm: bool = True
) -> list[Result]:
    """Times ours and every peer in turns, `rounds` times, after one call each to warm up; a Result for each peer."""
    sides = [ours, *peers.values()]
    if warm:
        for side in sides:
            side.run()
    speeds = [[side.work / seconds(side.run) for side in sides] for _ in range(rounds)]
    own, *others = zip(*speeds, strict=True)
    return [
        Result(
            name,
            unit,
            statistics.median(own),
            peer_name,
            statistics.median(other),
            tuple(a / b for a, b in zip(own, other, strict=True)),
            remark,
        )
        for peer_name, other in zip(peers, others, strict=True)
    ]


def seconds(function: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def machine() -> dict[str, str]:
    """The processor and the versions that the figures belong to."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    wide = any("avx512f" in line for line in lines)
    processor = (models[0] if models else platform.processor()) + (" with AVX-512" if wide else "")
    versions = {name: _version(name) for name in PACKAGES}
    return {"processor": processor, "cores": str(os.cpu_count()), "python": platform.python_version()} | versions


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
