"""Where metrics go: a JSON-lines file, TensorBoard, and a progress line for people."""

import datetime
import json
import pathlib
import sys
from collections.abc import Mapping

import tqdm


class JsonLines:
    """`metrics.jsonl`: one object a line, {"step": s, name: value, ...}."""

    def __init__(self, path: pathlib.Path, start_step: int):
        """Opens the file for appending and drops what an interrupted run wrote after `start_step`."""
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= start_step]
        path.write_text("".join(kept))
        self._file = path.open("a")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Appends one line."""
        self._file.write(json.dumps({"step": step} | {name: float(x) for name, x in scalars.items()}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: pathlib.Path) -> list[dict[str, float]]:
    """Reads every line of a metrics.jsonl, in order of step."""
    return [json.loads(line) for line in _lines(path)]


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
        """Shows step, loss in nats per token, images/s, remaining time, and MFU where it is known."""
        words = [f"{scalars['nats_per_token']:.4f} nats/token", f"{scalars['images_per_second']:,.0f} images/s"]
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


def _lines(path):
    return path.read_text().splitlines(keepends=True) if path.exists() else []
