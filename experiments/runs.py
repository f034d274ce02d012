"""The graph of jobs: which command each job runs, which jobs it needs, where it writes, and how to read its result."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from igpt_jax.errors import InputError
from igpt_jax.train.metrics import METRICS, read_metrics

FINISHED = "finished.json"


@dataclasses.dataclass(frozen=True)
class Job:
    """One planned use of `python -m igpt_jax`, for any seed.  Equal jobs run once, however many tables need them.

    Attributes:
      name: of its workdirs, which are `NAME-seedK`.
      command: "train" or "evaluate".
      config: a file of experiments/, such as "table1_probe.py".
      arguments: arguments of the file's get_config, `name=value`.
      inputs: further arguments whose values are the workdirs of other jobs with the same seed.
      rates: learning rates to try in this order, until one is worse than the one before on held-out images.  Only the
        first seed searches; the other seeds use its best rate.  The result of the best rate is then measured again, on
        the split that the scheduler asks for.
    """

    name: str
    command: str
    config: str
    arguments: tuple[str, ...]
    inputs: tuple[tuple[str, "Job"], ...] = ()
    rates: tuple[float, ...] = ()

    def flags(self, directory: pathlib.Path, seed: int) -> list[str]:
        """The --config flags of this job; `directory` holds the workdirs of its inputs."""
        inputs = [f"{name}={result_directory(job, directory, seed)}" for name, job in self.inputs]
        return [f"--config=experiments/{self.config}:{','.join([*self.arguments, *inputs])}", f"--config.seed={seed}"]


def in_order(wanted: Iterable[Job]) -> list[Job]:
    """Lists the wanted jobs and all jobs that they need: each once, and after the jobs that it needs.

    Raises:
      InputError: two different jobs have the same name.
    """
    ordered: dict[str, Job] = {}

    def add(job: Job) -> None:
        for _, needed in job.inputs:
            add(needed)
        if ordered.setdefault(job.name, job) != job:
            raise InputError(f"two different runs are called {job.name}: {ordered[job.name]} and {job}")

    for job in wanted:
        add(job)
    return list(ordered.values())


def work_directory(job: Job, directory: pathlib.Path, seed: int) -> pathlib.Path:
    """The workdir of a job, in the directory of all jobs."""
    return directory / f"{job.name}-seed{seed}"


def finished(job: Job, directory: pathlib.Path, seed: int) -> dict[str, Any] | None:
    """Reads what a finished job noted: its commands, its seconds and its best rate.  None if it has not finished."""
    path = work_directory(job, directory, seed) / FINISHED
    return json.loads(path.read_text()) if path.exists() else None


def result_directory(job: Job, directory: pathlib.Path, seed: int) -> pathlib.Path:
    """The workdir that holds a job's result: the job's own, or the one of its best rate."""
    own = work_directory(job, directory, seed)
    note = finished(job, directory, seed)
    return own / note["result"] if note else own


@dataclasses.dataclass(frozen=True)
class Result:
    """What one finished job with one seed has measured; accuracies in per cent."""

    job: Job
    directory: pathlib.Path  # of all jobs
    seed: int

    @functools.cached_property
    def evaluation(self) -> dict[str, Any]:
        """The contents of evaluation.json."""
        return json.loads((self._workdir / "evaluation.json").read_text())

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The contents of config.json."""
        return json.loads((self._workdir / "config.json").read_text())

    @property
    def _workdir(self) -> pathlib.Path:
        return result_directory(self.job, self.directory, self.seed)

    def checkpoints(self) -> dict[int, tuple[float, float]]:
        """Held-out nats per token and probe accuracy after each step that was measured, including the last one."""
        measured = {}
        for line in read_metrics(self._workdir / METRICS):
            nats = line.get("test/nats_per_token", line.get("validation/nats_per_token"))
            if nats is not None:
                measured[line["step"]] = nats, line["probe/accuracy"]
        return measured | {self.evaluation["step"]: (nats_per_token(self), probe_accuracy(self))}


def probe_accuracy(result: Result) -> float:
    """Accuracy of the probe at the layer chosen on held-out images; for a BERT model, the mean over its masks."""
    return result.evaluation["probe"]["accuracy"]


def probe_vote(result: Result) -> float:
    """Accuracy of a BERT model's probe, by the vote of its masks."""
    return result.evaluation["probe"]["vote"]["accuracy"]


def concatenated(result: Result) -> float:
    """Accuracy of the probe that reads the layers around the best one together."""
    return result.evaluation["probe"]["concatenated"]["accuracy"]


def raw_pixels(result: Result) -> float:
    """Accuracy of a probe that reads raw pixels."""
    return result.evaluation["probe"]["raw_pixels"]


def untrained(result: Result) -> float:
    """Accuracy of the probe of the same network before training."""
    return result.evaluation["probe"]["untrained"]


def accuracy(result: Result) -> float:
    """Accuracy of the class head; for a BERT model, the mean over its masks."""
    return only(result.evaluation["accuracy"])


def accuracy_vote(result: Result) -> float:
    """Accuracy of a BERT model's class head, by the vote of its masks."""
    return only(result.evaluation["accuracy_vote"])


def measured_at(step: int, which: int) -> Callable[[Result], float]:
    """Returns a function that reads the nats per token (which=0) or the probe accuracy (which=1) after a step."""

    def read(result: Result) -> float:
        return result.checkpoints()[step][which]

    return read


def nats_per_token(result: Result) -> float:
    """Held-out loss, nats per token."""
    return only(result.evaluation["nats_per_token"])


def only(by_split: dict[str, float]) -> float:
    """The value of the one split that was measured."""
    (value,) = by_split.values()
    return value
