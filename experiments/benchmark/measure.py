"""Times functions in alternating rounds, and describes the results."""

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
from multiprocessing.connection import Connection
from typing import Any

from igpt_jax.memory import keep_freed_memory

ROUNDS = 5
DRAWN = ("growth", "profile")  # entries that have a figure of their own
SECONDS = "s, less is better"  # unit of a `Result` that is a time
UNITS = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}  # by the processor's flag, the widest first
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "tensorflow-cpu",
    "torch",
    "transformers",
    "scikit-learn",
    "pytorch-fid",
    "numpy",
)


@dataclasses.dataclass(frozen=True)
class Result:
    """One measurement, or a comparison with a peer.  Higher is better, unless the unit says otherwise."""

    name: str
    unit: str
    ours: float  # median over the rounds
    peer_name: str | None = None
    peer: float | None = None  # median over the rounds
    ratios: tuple[float, ...] = ()  # ours divided by the peer's, in each round
    remark: str = ""  # what was checked to be equal, or what limits the speed

    @property
    def ratio(self) -> float | None:
        """The median of the ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    def describe(self) -> str:
        """Formats the result as text, two lines."""
        if not self.ratios:
            return f"{self.name}: {self.ours:,.4g} {self.unit}\n  {self.remark}"
        rounds = ", ".join(f"{ratio:.3g}" for ratio in self.ratios)
        return (
            f"{self.name}: {self.ours:,.4g} {self.unit} against {self.peer:,.4g} of {self.peer_name}\n"
            f"  {self.ratio:.3g} times ({rounds}); {self.remark}"
        )


class Elsewhere:
    """A function that runs in a process of its own, so that memory and threads of other functions do not affect it."""

    def __init__(self, make: Callable[..., Callable[[], object]], *arguments: Any) -> None:
        """Starts the process.

        Args:
          make: a top-level function that returns the function to run; called in the process.
          *arguments: of `make`.  They, and what the function returns, must be picklable.
        """
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        context.Process(target=_serve, args=(there, make, arguments), daemon=True).start()
        there.close()

    def __call__(self) -> object:
        """Runs the function in the process.

        Returns:
          What the function returns.

        Raises:
          EOFError: the process has ended; its error message is on stderr.
        """
        self._here.send(None)
        return self._here.recv()


def _serve(connection: Connection, make: Callable[..., Callable[[], object]], arguments: tuple[Any, ...]) -> None:
    keep_freed_memory()
    function = make(*arguments)
    with contextlib.suppress(EOFError):  # the measuring process has ended
        while True:
            connection.recv()
            connection.send(function())


@dataclasses.dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    run: Callable[[], object]  # the function to time
    work: float  # how much one call does, such as its number of images


def compare(
    name: str, unit: str, ours: Side, peers: dict[str, Side], remark: str, *, rounds: int = ROUNDS, warm: bool = True
) -> list[Result]:
    """Times our function and every peer's in alternating rounds.

    Args:
      name: of the comparison.
      unit: of the speeds, such as "images/s".
      ours: our side.
      peers: the other sides by their names.
      remark: of the results.
      rounds: how often each side is called.
      warm: whether each side is called once before the rounds.

    Returns:
      One result for each peer.
    """
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
    """The wall time of one call, in seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def machine() -> dict[str, str]:
    """The processor with its widest arithmetic units, and the versions of Python and of the packages."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    widest = [name for flag, name in UNITS.items() if flag in flags][:1]
    processor = " with ".join([models[0] if models else platform.processor(), *widest])
    versions = {name: _version(name) for name in PACKAGES}
    return {"processor": processor, "cores": str(os.cpu_count()), "python": platform.python_version()} | versions


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
