"""Where metrics go: a JSON-lines file, TensorBoard, and a progress line for people."""

import datetime
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import tqdm

from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write

METRICS = "metrics.jsonl"


class JsonLines:
    """Writes `metrics.jsonl`, which has one object on each line: {"step": s, name: value, ...}."""

    def __init__(self, path: pathlib.Path, start_step: int):
        """Opens the file for appending, and drops what an interrupted run wrote after `start_step`.

        Raises:
          InputError: a line is damaged.
        """
        self.kept = [line for line in read_metrics(path) if line["step"] <= start_step]
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


class Progress:
    """A live bar on a terminal, plain lines elsewhere."""

    def __init__(self, start_step: int, steps: int):
        self._steps = steps
        self._bar = tqdm.tqdm(
            total=steps, initial=start_step, unit="step", dynamic_ncols=True, disable=not sys.stderr.isatty()
        )

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows step, loss in nats per token, accuracy if any, images/s, time left, and MFU where it is known."""
        nats = scalars.get("nats_per_token", float("nan"))
        words = [f"{nats:.4f} nats/token", f"{scalars['images_per_second']:,.0f} images/s"]
        if "accuracy" in scalars:
            words.insert(1, f"{scalars['accuracy']:.1f} % right")
        if "mfu" in scalars:
            words.append(f"MFU {scalars['mfu']:.0%}")
        if self._bar.disable:
            remaining = datetime.timedelta(seconds=round(scalars["seconds_remaining"]))
            print(f"step {step}/{self._steps}", *words, f"{remaining} left", sep=" | ", file=sys.stderr, flush=True)
        else:
            self._bar.set_postfix_str(" | ".join(words), refresh=False)
            self._bar.update(step - self._bar.n)

    def close(self) -> None:
        """Leaves the terminal on a fresh line."""
        self._bar.close()


def _dump(values: Mapping[str, Any]) -> str:
    return json.dumps(values) + "\n"
