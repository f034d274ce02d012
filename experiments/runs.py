"""Runs as a graph: what each calls, where it writes, what it starts from, and what is read from its result."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable

from igpt_jax.errors import InputError
from igpt_jax.train.metrics import METRICS, read_metrics

FINISHED = "finished.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """One use of `python -m igpt_jax`, with any seed; equal ones are one, whichever tables ask for them.

    Attributes:
      name: of its workdirs, `NAME-seedK`.
      command: "train" or "evaluate".
      config: a file of experiments/, such as "table1_probe.py".
      arguments: of its get_config, `name=value`.
      inputs: arguments that are the workdirs of other runs, of the same seed.
      rates: learning rates that are tried in this order until one does worse on held-out images; the first seed does
        so, the others take its best.  The result is then measured once more, on the images of the whole reproduction.
    """

    name: str
    command: str
    config: str
    arguments: tuple[str, ...]
    inputs: tuple[tuple[str, "Job"], ...] = ()
    rates: tuple[float, ...] = ()

    def flags(self, directory: pathlib.Path, seed: int) -> list[str]:
        """The config of this run, as a flag; its inputs lie in `directory`."""
        found = [f"{name}={result_directory(run, directory, seed)}" for name, run in self.inputs]
        return [f"--config=experiments/{self.config}:{','.join([*self.arguments, *found])}", f"--config.seed={seed}"]


def in_order(wanted: Iterable[Job]) -> list[Job]:
    """The wanted runs and all that they need, each once and after what it needs.

    Raises InputError where two that differ have one name.
    """
    found: dict[str, Job] = {}

    def add(run):
        for _, needed in run.inputs:
            add(needed)
        if found.setdefault(run.name, run) != run:
            raise InputError(f"two different runs are called {run.name}: {found[run.name]} and {run}")

    for run in wanted:
        add(run)
    return list(found.values())


def work_directory(run: Job, directory: pathlib.Path, seed: int) -> pathlib.Path:
    """Where a run writes."""
    return directory / f"{run.name}-seed{seed}"


def finished(run: Job, directory: pathlib.Path, seed: int) -> dict | None:
    """The note that a run left when it was complete, or None: its commands, seconds, and the rate that was best."""
    path = work_directory(run, directory, seed) / FINISHED
    return json.loads(path.read_text()) if path.exists() else None


def result_directory(run: Job, directory: pathlib.Path, seed: int) -> pathlib.Path:
    """The workdir that a run resulted in: its own, or that of its best rate."""
    own = work_directory(run, directory, seed)
    note = finished(run, directory, seed)
    return own / note["result"] if note else own


@dataclasses.dataclass(frozen=True)
class Result:
    """What one finished run with one seed has measured; accuracies in per cent."""

    run: Job
    directory: pathlib.Path  # of all runs
    seed: int

    @functools.cached_property
    def evaluation(self) -> dict:
        """evaluation.json."""
        return json.loads((self._own / "evaluation.json").read_text())

    @functools.cached_property
    def config(self) -> dict:
        """config.json; a measured origin has none."""
        return json.loads((self._own / "config.json").read_text())

    @property
    def _own(self):
        return result_directory(self.run, self.directory, self.seed)

    def checkpoints(self) -> dict[int, tuple[float, float]]:
        """Held-out nats per token and probe accuracy after each step that was measured, the last included."""
        found = {}
        for line in read_metrics(self._own / METRICS):
            nats = line.get("test/nats_per_token", line.get("validation/nats_per_token"))
            if nats is not None:
                found[line["step"]] = nats, line["probe/accuracy"]
        return found | {self.evaluation["step"]: (nats_per_token(self), probe_accuracy(self))}


def probe_accuracy(result: Result) -> float:
    """Of the layer that held-out images chose; of a BERT model the mean over its masks."""
    return result.evaluation["probe"]["accuracy"]


def probe_vote(result: Result) -> float:
    """Of the modal prediction of a BERT model's masks."""
    return result.evaluation["probe"]["vote"]["accuracy"]


def concatenated(result: Result) -> float:
    """Of the layers about the best, side by side."""
    return result.evaluation["probe"]["concatenated"]["accuracy"]


def raw_pixels(result: Result) -> float:
    """Of a probe that reads the colors themselves."""
    return result.evaluation["probe"]["raw_pixels"]


def untrained(result: Result) -> float:
    """Of the same network as it was drawn."""
    return result.evaluation["probe"]["untrained"]


def accuracy(result: Result) -> float:
    """Of the class head; of a BERT model the mean over its masks."""
    return only(result.evaluation["accuracy"])


def accuracy_vote(result: Result) -> float:
    """Likewise, of the modal prediction of the masks."""
    return only(result.evaluation["accuracy_vote"])


def nats_per_token(result: Result) -> float:
    """Held-out likelihood."""
    return only(result.evaluation["nats_per_token"])


def only(by_split: dict[str, float]) -> float:
    """The value of the one split that was measured."""
    (value,) = by_split.values()
    return value
