"""Where metrics go: a JSON-lines file, TensorBoard, an experiment tracker, and a progress line for people."""

import datetime
import hashlib
import importlib
import itertools
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tqdm

from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.progress import SECONDS

METRICS = "metrics.jsonl"


class JsonLines:
    """Writes `metrics.jsonl`, which has one object on each line: {"step": s, name: value, ...}."""

    def __init__(self, path: pathlib.Path, start_step: int):
        """Opens the file for appending, and drops what an interrupted run wrote after `start_step`.

        Raises:
          InputError: a line is damaged.
        """
        lines = read_metrics(path)
        self.kept = [line for line in lines if line["step"] <= start_step]
        self.dropped = [line for line in lines if line["step"] > start_step]
        with atomic_write(path) as partial:
            partial.write_text("".join(map(_dump, self.kept)))
        self._file = path.open("a")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one line."""
        self._file.write(_dump({"step": step} | {name: float(x) for name, x in scalars.items()}))
        self._file.flush()

    def sync(self) -> None:
        """Returns when all lines are safely on disk: a checkpoint must not be newer than they are."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """Reads every line of a metrics.jsonl, in the order of steps.  A last line that a kill cut short is left out.

    Raises:
      InputError: another line is damaged, or the steps are not in order.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    metrics = []
    for number, line in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            sound = type(values) is dict and type(values.get("step")) is int
            sound = sound and all(type(x) in (int, float) for x in values.values())
        except (ValueError, RecursionError):
            sound = False
        if sound:
            metrics.append(values)
        elif number < len(lines) or line.endswith(b"\n"):
            raise InputError(f"line {number} of {path} is damaged; delete that line")
    if any(later["step"] < earlier["step"] for earlier, later in itertools.pairwise(metrics)):
        raise InputError(f"the steps of {path} are not in order; sort its lines, or restore the file")
    return metrics


class TensorBoard:
    """Event files for TensorBoard through clu; needs tensorflow, and writes nothing without it."""

    def __init__(self, workdir: pathlib.Path):
        try:
            from clu.metric_writers import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(workdir))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one point of every curve."""
        if self._writer:
            self._writer.write_scalars(step, scalars)

    def sync(self) -> None:
        """Hands all points to the file system."""
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        """Flushes and closes the event file."""
        if self._writer:
            self._writer.close()


class Tracker:
    """Weights & Biases or trackio, which have the same interface.

    A run that is resumed continues its curves.  Both packages read their own environment variables, so
    `WANDB_MODE=offline` works.  The project is `igpt_jax`, or what `WANDB_PROJECT` or `TRACKIO_PROJECT` names.
    """

    def __init__(
        self,
        name: str,
        workdir: pathlib.Path,
        directory: pathlib.Path,
        config: Mapping[str, Any],
        written: Sequence[Mapping[str, float]],
    ):
        """Opens the run of this workdir.

        Args:
          name: "wandb" or "trackio".
          workdir: gives the run its name; two workdirs have two runs.
          directory: receives the files of wandb.
          config: the options to show.
          written: lines that an interrupted run has already written, and that this one is about to write again.

        Raises:
          InputError: the package cannot start, for example because nobody is logged in.
        """
        tracker = importlib.import_module(name)
        run = f"{workdir.name}-{hashlib.sha256(str(workdir.resolve()).encode()).hexdigest()[:8]}"
        own = {"id": run, "dir": str(directory)} if name == "wandb" else {"embed": False}
        project = os.environ.get(f"{name.upper()}_PROJECT", "igpt_jax")
        try:
            self._run = tracker.init(project=project, name=run, resume="allow", config=dict(config), **own)
        except Exception as error:  # each package has its own errors
            raise InputError(
                f"tracker={name} does not start: {error}; log in, work offline (WANDB_MODE=offline), or set tracker=''"
            ) from error
        self._written = {_key(line["step"], line) for line in written}

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one point of every curve."""
        if _key(step, scalars) not in self._written:
            self._run.log({name: float(x) for name, x in scalars.items()}, step=step)

    def sync(self) -> None:
        """Does nothing: both packages write in the background, and metrics.jsonl has everything."""

    def close(self) -> None:
        """Waits until everything is written."""
        self._run.finish()


def _key(step: float, scalars: Mapping[str, float]) -> tuple[float, frozenset[str]]:
    return step, frozenset(scalars) - {"step"}


class Progress:
    """A live bar on a terminal, plain lines elsewhere."""

    def __init__(self, start_step: int, steps: int):
        self._start_step, self._steps = start_step, steps
        self._start = self._last_line = time.monotonic()
        self._seconds_a_step: float | None = None  # of the steps before the last logged one
        self._bar = tqdm.tqdm(
            total=steps, initial=start_step, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty()
        )

    def reached(self, step: int) -> None:
        """Moves the bar; elsewhere, prints a line if there has been none for `SECONDS`."""
        if not self._bar.disable:
            self._bar.update(step - self._bar.n)
        elif (now := time.monotonic()) >= self._last_line + SECONDS:
            seconds_a_step = self._seconds_a_step or (now - self._start) / (step - self._start_step)
            self._print(step, seconds_a_step * (self._steps - step))

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows step, loss in nats per token, accuracy if any, images/s, time left, and MFU where it is known."""
        if step < self._steps:
            self._seconds_a_step = scalars["seconds_remaining"] / (self._steps - step)
        nats = scalars.get("nats_per_token", float("nan"))
        words = [f"{nats:.4f} nats/token", f"{scalars['images_per_second']:,.0f} images/s"]
        if "accuracy" in scalars:
            words.insert(1, f"{scalars['accuracy']:.1f} % right")
        if "mfu" in scalars:
            words.append(f"MFU {scalars['mfu']:.0%}")
        if self._bar.disable:
            self._print(step, scalars["seconds_remaining"], *words)
        else:
            self._bar.set_postfix_str(" | ".join(words), refresh=False)
            self._bar.update(step - self._bar.n)

    def _print(self, step: int, seconds_remaining: float, *words: str) -> None:
        remaining = datetime.timedelta(seconds=round(seconds_remaining))
        print(f"step {step}/{self._steps}", *words, f"{remaining} left", sep=" | ", file=sys.stderr, flush=True)
        self._last_line = time.monotonic()

    def close(self) -> None:
        """Leaves the terminal on a fresh line."""
        self._bar.close()


def _dump(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"
