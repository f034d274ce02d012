"""Runs a graph of runs: each as the real command line, on a core of its own, in the order of what needs what."""

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
from collections.abc import Sequence

from experiments.runs import FINISHED, Job, finished, in_order, work_directory
from experiments.tables import write_json
from igpt_jax.search import best, search
from igpt_jax.train.metrics import METRICS, read_metrics

ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Task:
    """One run with one seed."""

    run: Job
    seed: int

    def __str__(self):
        return f"{self.run.name}-seed{self.seed}"


class Failed(Exception):
    """A command ended with another status than 0; the message names it and its log."""


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """Makes what is missing in `directory`.

    Attributes:
      seeds: the first of them searches learning rates.
      split: the images that are measured; "validation" while options are being chosen, and then nothing trains on them.
      jobs: commands at a time; each has a core of its own where there are several.
      environment: of the commands.
    """

    directory: pathlib.Path
    seeds: tuple[int, ...]
    split: str
    jobs: int
    environment: dict[str, str]

    def tasks(self, wanted: Sequence[Job]) -> dict[Task, set[Task]]:
        """What there is to do, and what each needs before it; in an order that works."""
        found = {}
        for seed in self.seeds:
            for run in in_order(wanted):
                needed = {Task(other, seed) for _, other in run.inputs}
                if run.rates and seed != self.seeds[0]:
                    needed.add(Task(run, self.seeds[0]))
                found[Task(run, seed)] = needed
        return found

    def make(self, wanted: Sequence[Job]) -> list[str]:
        """Runs all that is missing, and goes on where something fails.  Returns what failed, a line each."""
        tasks = self.tasks(wanted)
        done = {task for task in tasks if finished(task.run, self.directory, task.seed)}
        waiting = [task for task in tasks if task not in done]
        print(f"{len(tasks)} runs, {len(done)} of them done before", flush=True)
        failures, lost = [], set()
        cores = queue.SimpleQueue()
        for core in self._cores():
            cores.put(core)
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(self.jobs, initializer=_pin, initargs=(cores,)) as pool:
            running = {}
            while waiting or running:
                for task in list(waiting):
                    if tasks[task] & lost:
                        waiting.remove(task)
                        lost.add(task)
                        failures.append(f"{task} was not run, since what it needs failed")
                    elif tasks[task] <= done and len(running) < self.jobs:
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
                        lost.add(task)
                        failures.append(str(error))
                        print(error, file=sys.stderr, flush=True)
                        continue
                    done.add(task)
                    minutes = (time.monotonic() - start) / 60
                    print(f"[{minutes:5.1f} min] {len(done)} of {len(tasks)}: {task}, {seconds:.0f} s", flush=True)
        return failures

    def _cores(self) -> list[int | None]:
        if self.jobs == 1 or not hasattr(os, "sched_setaffinity"):
            return [None] * self.jobs
        available = sorted(os.sched_getaffinity(0))
        return [available[job % len(available)] for job in range(self.jobs)]

    def perform(self, task: Task) -> float:
        """Runs one task.  Returns its seconds, raises Failed."""
        start = time.monotonic()
        run, workdir = task.run, work_directory(task.run, self.directory, task.seed)
        commands, note = [], {"result": "."}
        if not run.rates:
            commands.append(self._call(task, workdir, [run.command, *self._flags(task)]))
        else:
            first = finished(run, self.directory, self.seeds[0]) if task.seed != self.seeds[0] else None

            def measure(rate):
                arguments = [run.command, *self._flags(task, f"rate={rate:g}")]
                commands.append(self._call(task, workdir / f"rate-{rate:g}", arguments))
                return held_out_accuracy(workdir / f"rate-{rate:g}")

            found = search((first["rate"],) if first else run.rates, measure)
            rate = best(found)
            note = {"result": f"rate-{rate:g}", "rate": rate, "held_out": {f"{rate:g}": a for rate, a in found.items()}}
            if self.split != "validation":  # which it was trained with
                chosen = workdir / note["result"]
                commands.append(self._call(task, chosen, ["evaluate", f"--split={self.split}"]))
        seconds = time.monotonic() - start
        write_json(workdir / FINISHED, note | {"commands": commands, "wall_seconds": seconds})
        return seconds

    def missing_commands(self, wanted: Sequence[Job]) -> list[str]:
        """What is yet to be run, a command each; without the last of a search, which measures its best rate."""
        lines = []
        for task in self.tasks(wanted):
            if finished(task.run, self.directory, task.seed):
                continue
            workdir = work_directory(task.run, self.directory, task.seed)
            for rate in task.run.rates or (None,):
                more, place = ((), workdir) if rate is None else ((f"rate={rate:g}",), workdir / f"rate-{rate:g}")
                command = ["python", "-m", "igpt_jax", task.run.command, *self._flags(task, *more)]
                lines.append(shlex.join([*command, f"--workdir={place}"]))
        return lines

    def _flags(self, task: Task, *more: str) -> list[str]:
        config, *flags = task.run.flags(self.directory, task.seed)
        if self.split == "validation":
            flags += ["--config.evaluate.split=validation", "--config.data.fold_validation=False"]
        return [",".join([config, *more]), *flags]

    def _call(self, task, workdir, arguments) -> str:
        """Runs one command with its output in the workdir.  Returns it as it would be typed."""
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
    """The best that a fine-tuning reached on held-out images, per cent."""
    return max(line["validation/accuracy"] for line in read_metrics(workdir / METRICS) if "validation/accuracy" in line)


def _was_stopped(log: pathlib.Path) -> bool:
    """A run that a signal ended in good order has status 0 too."""
    lines = log.read_text().strip().splitlines()
    return bool(lines) and lines[-1].endswith("run the same command again to go on")


def _pin(cores: queue.SimpleQueue) -> None:
    """Keeps this thread and the processes that it starts on one core: runs of one thread side by side are fastest."""
    core = cores.get()
    if core is not None:
        os.sched_setaffinity(threading.get_native_id(), {core})


def total_seconds(directory: pathlib.Path) -> float:
    """What all finished runs took, together."""
    return sum(json.loads(path.read_text())["wall_seconds"] for path in directory.glob(f"*/{FINISHED}"))
