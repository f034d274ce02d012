"""Runs a graph of jobs: each as a command line on a core of its own, after the jobs that it needs."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from experiments.runs import FINISHED, Job, finished, in_order, work_directory
from experiments.tables import write_json
from igpt_jax.errors import InputError
from igpt_jax.search import best, search
from igpt_jax.train.metrics import METRICS, read_metrics

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Task:
    """One job with one seed."""

    job: Job
    seed: int

    def __str__(self) -> str:
        return f"{self.job.name}-seed{self.seed}"


class Failed(Exception):
    """A command ended with a status other than 0, or was stopped; the message names it and its log."""


class RunFailed(Exception):
    """Runs ended with a status other than 0, or could not start for that reason; the message names them."""


def exit_status(program: str, measure: Callable[[], int | None]) -> int:
    """Calls what a command line asks for, and explains what stops it in one line on stderr.

    Returns:
      The exit status: what `measure` returns, or 0; 1 if a run failed, 2 for bad input, 130 if interrupted.
    """
    try:
        return measure() or 0
    except RunFailed as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 1
    except InputError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def worker_count(jobs: int | None, scale: str) -> int:
    """Returns how many commands run at a time: `jobs`, or by default the number of cores for miniature, 1 for paper.

    Raises:
      InputError: `jobs` is below 1.
    """
    if jobs is None:
        return (os.cpu_count() or 1) if scale == "miniature" else 1
    if jobs < 1:
        raise InputError(f"--jobs={jobs} must be at least 1")
    return jobs


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """Runs the jobs whose results are missing.

    Attributes:
      directory: holds the workdirs of all jobs.
      seeds: the seeds of every job; only the first one searches learning rates.
      split: the images to measure on.  "validation" is for choosing options: then no job trains on these images.
      workers: how many commands run at a time; if more than one, each has a core of its own.
      environment: environment variables of the commands.
    """

    directory: pathlib.Path
    seeds: tuple[int, ...]
    split: str
    workers: int
    environment: dict[str, str]

    def tasks(self, wanted: Sequence[Job]) -> dict[Task, set[Task]]:
        """Lists all tasks of the wanted jobs in an order that works, each with the tasks that must end before it."""
        tasks = {}
        for seed in self.seeds:
            for job in in_order(wanted):
                needed = {Task(other, seed) for _, other in job.inputs}
                if job.rates and seed != self.seeds[0]:
                    needed.add(Task(job, self.seeds[0]))
                tasks[Task(job, seed)] = needed
        return tasks

    def make(self, wanted: Sequence[Job]) -> list[str]:
        """Runs all tasks that have not finished.  A task that fails stops only the tasks that need it.

        Returns:
          One line for each task that failed or was not run.
        """
        tasks = self.tasks(wanted)
        done = {task for task in tasks if finished(task.job, self.directory, task.seed)}
        waiting = [task for task in tasks if task not in done]
        print(f"{len(tasks)} runs, {len(done)} of them done before", flush=True)
        failures: list[str] = []
        failed: set[Task] = set()
        start = time.monotonic()
        with pinned_pool(self.workers) as pool:
            running: dict[concurrent.futures.Future[float], Task] = {}
            while waiting or running:
                for task in list(waiting):
                    if tasks[task] & failed:
                        waiting.remove(task)
                        failed.add(task)
                        failures.append(f"{task} was not run, since what it needs failed")
                    elif tasks[task] <= done and len(running) < self.workers:
                        waiting.remove(task)
                        running[pool.submit(self.perform, task)] = task
                if not running:
                    continue
                ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in ended:
                    task = running.pop(future)
                    try:
                        seconds = future.result()
                    except Failed as error:
                        failed.add(task)
                        failures.append(str(error))
                        print(error, file=sys.stderr, flush=True)
                        continue
                    done.add(task)
                    minutes = (time.monotonic() - start) / 60
                    print(f"[{minutes:5.1f} min] {len(done)} of {len(tasks)}: {task}, {seconds:.0f} s", flush=True)
        return failures

    def make_all(self, wanted: Sequence[Job]) -> None:
        """Runs all tasks of the wanted jobs that have not finished.

        Raises:
          RunFailed: one of them failed.
        """
        if failures := self.make(wanted):
            raise RunFailed("; ".join(failures))

    def perform(self, task: Task) -> float:
        """Runs one task.

        Returns:
          The seconds that it took.

        Raises:
          Failed: one of its commands failed.
        """
        start = time.monotonic()
        job, workdir = task.job, work_directory(task.job, self.directory, task.seed)
        commands: list[str] = []
        note: dict[str, Any] = {"result": "."}
        if not job.rates:
            commands.append(self._call(task, workdir, [job.command, *self._flags(task)]))
        else:
            first = finished(job, self.directory, self.seeds[0]) if task.seed != self.seeds[0] else None

            def measure(rate: float) -> float:
                arguments = [job.command, *self._flags(task, f"rate={rate:g}")]
                commands.append(self._call(task, workdir / f"rate-{rate:g}", arguments))
                return held_out_accuracy(workdir / f"rate-{rate:g}")

            accuracies = search((first["rate"],) if first else job.rates, measure)
            rate = best(accuracies)
            held_out = {f"{tried:g}": accuracy for tried, accuracy in accuracies.items()}
            note = {"result": f"rate-{rate:g}", "rate": rate, "held_out": held_out}
            if self.split != "validation":  # a fine-tuning is measured on the validation images while it trains
                chosen = workdir / note["result"]
                commands.append(self._call(task, chosen, ["evaluate", f"--split={self.split}"]))
        seconds = time.monotonic() - start
        write_json(workdir / FINISHED, note | {"commands": commands, "wall_seconds": seconds})
        return seconds

    def missing_commands(self, wanted: Sequence[Job]) -> list[str]:
        """The commands of all tasks that have not finished.

        They do not include the last command of a search, which measures the best rate and is not known beforehand.
        """
        lines = []
        for task in self.tasks(wanted):
            if finished(task.job, self.directory, task.seed):
                continue
            workdir = work_directory(task.job, self.directory, task.seed)
            for rate in task.job.rates or (None,):
                more, place = ((), workdir) if rate is None else ((f"rate={rate:g}",), workdir / f"rate-{rate:g}")
                command = ["python", "-m", "igpt_jax", task.job.command, *self._flags(task, *more)]
                lines.append(shlex.join([*command, f"--workdir={place}"]))
        return lines

    def _flags(self, task: Task, *more: str) -> list[str]:
        config, *flags = task.job.flags(self.directory, task.seed)
        if self.split == "validation":
            flags += ["--config.evaluate.split=validation", "--config.data.fold_validation=False"]
        return [",".join([config, *more]), *flags]

    def _call(self, task: Task, workdir: pathlib.Path, arguments: list[str]) -> str:
        """Runs one command, whose output goes to the workdir.  Returns the command as it would be typed."""
        command = ["python", "-m", "igpt_jax", *arguments, "--report=False", f"--workdir={workdir}"]
        workdir.mkdir(parents=True, exist_ok=True)
        log = workdir / "log.txt"
        with log.open("a") as file:
            ended = subprocess.run(
                [sys.executable, *command[1:]], stdout=file, stderr=file, cwd=ROOT, env=self.environment, check=False
            )
        if ended.returncode or _was_stopped(log):
            last = log.read_text().strip().splitlines()[-1:] or [""]
            raise Failed(f"{task} failed: {last[0][:300]}\n  log: {log}\n  command: {shlex.join(command)}")
        return shlex.join(command)


def held_out_accuracy(workdir: pathlib.Path) -> float:
    """The best accuracy that a fine-tuning reached on held-out images, in per cent."""
    return max(line["validation/accuracy"] for line in read_metrics(workdir / METRICS) if "validation/accuracy" in line)


def _was_stopped(log: pathlib.Path) -> bool:
    """Whether a signal stopped the command, which then has exit status 0 too."""
    lines = log.read_text().strip().splitlines()
    return bool(lines) and lines[-1].endswith("run the same command again to go on")


def pinned_pool(workers: int) -> concurrent.futures.ThreadPoolExecutor:
    """Returns a pool of threads; each keeps the processes that it starts on one core, unless there is only one thread.

    Several commands with one core each finish sooner than commands that share all cores.
    """
    if workers == 1 or not hasattr(os, "sched_setaffinity"):
        return concurrent.futures.ThreadPoolExecutor(workers)
    available = sorted(os.sched_getaffinity(0))
    cores: queue.SimpleQueue[int] = queue.SimpleQueue()
    for worker in range(workers):
        cores.put(available[worker % len(available)])
    return concurrent.futures.ThreadPoolExecutor(workers, initializer=_pin, initargs=(cores,))


def _pin(cores: "queue.SimpleQueue[int]") -> None:
    os.sched_setaffinity(threading.get_native_id(), {cores.get()})


def total_seconds(directory: pathlib.Path) -> float:
    """The wall seconds of all finished jobs together."""
    return sum(json.loads(path.read_text())["wall_seconds"] for path in directory.glob(f"*/{FINISHED}"))
