"""What a run writes down while it trains: metrics, speed, and the evidence when a loss is not finite."""

import contextlib
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
import optax

from igpt_jax.config import RunConfig
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.model.flops import peak_flops, training_flops
from igpt_jax.parallel.processes import allgather, broadcast_from_primary, is_primary_process
from igpt_jax.storage import Mirror
from igpt_jax.train.metrics import METRICS, JsonLines, Progress, TensorBoard, Tracker
from igpt_jax.train.prefetch import DeviceBatches
from igpt_jax.train.state import TrainState

# A step with the indices of its images and its metrics, or None before the first.
_Pending = tuple[int, jax.Array, Mapping[str, jax.Array]] | None


class Record:
    """Checks every step's metrics, and writes those of every `log_every`-th.

    A step is looked at once the next one is on its way: looking at once would have the device wait for the host.
    """

    def __init__(
        self,
        config: RunConfig,
        workdir: pathlib.Path,
        start: TrainState,
        schedule: optax.Schedule,
        batches: DeviceBatches,
    ):
        self._config, self._workdir, self._schedule = config, workdir, schedule
        start_step, self._skipped = int(start.step), int(start.skipped)
        # Each writes scalars and closes; files also sync.
        self._files: list[Any] = []
        self._progress: list[Any] = []
        evaluated = False
        if is_primary_process():
            self._mirror = Mirror(workdir, METRICS)
            lines = JsonLines(self._mirror.path / METRICS, start_step)
            self._files, self._progress = [lines, TensorBoard(self._mirror.path)], [Progress(start_step, config.steps)]
            if config.tracker:
                options = dataclasses.asdict(config)
                self._files.append(Tracker(config.tracker, workdir, self._mirror.path, options, lines.dropped))
            self._mirror.push()
            evaluated = any(line["step"] == start_step and "learning_rate" not in line for line in lines.kept)
        # Whether the file has an evaluation of the first step.
        self.evaluated = bool(broadcast_from_primary(np.array([evaluated]))[0])
        self._clock = _Clock(config, start_step, batches)
        self._pending: _Pending = None
        self._finite: _Pending = None

    def add(self, step: int, batch: Mapping[str, jax.Array], metrics: Mapping[str, jax.Array]) -> None:
        """Takes the metrics of a step just begun, and looks at those of the step before."""
        for value in metrics.values():
            value.copy_to_host_async()
        before, self._pending = self._pending, (step, batch["index"], metrics)
        self._look_at(before)

    def flush(self) -> None:
        """Looks at the step just begun too, waiting for it, and has everything safely on disk.

        A checkpoint may then be written: nothing in it comes after what the files tell.
        """
        pending, self._pending = self._pending, None
        self._look_at(pending)
        self._sync()

    def write_evaluation(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes what was measured after a step."""
        for writer in self._files:
            writer.write_scalars(step, scalars)
        self._sync()
        self._clock.restart(step)

    def _sync(self) -> None:
        for writer in self._files:
            writer.sync()
        if self._files:
            self._mirror.push()

    def close(self) -> None:
        """Closes the files."""
        with contextlib.ExitStack() as stack:
            if self._files:
                stack.callback(self._mirror.close)
                stack.callback(self._mirror.push)
            for writer in self._files + self._progress:
                stack.callback(writer.close)

    def _look_at(self, pending: _Pending) -> None:
        if pending is None:
            return
        step, index, metrics = pending
        skipped = int(metrics["skipped"])
        if skipped > self._config.optimizer.skip_spikes:
            self._stop(step, index, metrics)
        if skipped == self._skipped:
            self._finite = pending
        self._skipped = skipped
        if step % self._config.log_every == 0 or step == self._config.steps:
            scalars = {name: x for name, x in _scalars(metrics).items() if math.isfinite(x)} | self._clock.lap(step)
            taken = step - 1 - skipped  # a skipped step does not advance the schedule
            scalars["learning_rate"] = float(self._schedule(taken))
            for writer in self._files + self._progress:
                writer.write_scalars(step, scalars)
        else:
            for progress in self._progress:
                progress.reached(step)

    def _stop(self, step: int, index: jax.Array, metrics: Mapping[str, jax.Array]) -> NoReturn:
        evidence: dict[str, Any] = {
            "step": step,
            "metrics": {name: x if math.isfinite(x) else str(x) for name, x in _scalars(metrics).items()},
            "index": allgather(index).tolist(),
        }
        if self._finite:
            evidence["last_finite"] = {"step": self._finite[0]} | _scalars(self._finite[2])
        path = self._workdir / "nonfinite.json"
        if is_primary_process():
            with atomic_write(path) as partial:
                partial.write_text(json.dumps(evidence, indent=2) + "\n")
        raise InputError(
            f"the loss or its gradient is no longer finite at step {step}: {evidence['metrics']}; "
            f"{path} names the images; --replay={step} measures each of them; "
            f"--config.optimizer.skip_spikes={int(metrics['skipped'])} would leave this step out; "
            f"or lower optimizer.learning_rate in another --workdir"
        )


def _scalars(metrics: Mapping[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in jax.device_get(metrics).items()}


class _Clock:
    """Speed since the last lap; evaluations and compilation do not count."""

    def __init__(self, config: RunConfig, start: int, batches: DeviceBatches):
        self._config, self._peak, self._batches = config, peak_flops(), batches
        self.restart(start)

    def restart(self, step: int) -> None:
        self._step, self._time, self._waited = step, time.perf_counter(), self._batches.waited

    def lap(self, step: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._time
        seconds_per_step = seconds / (step - self._step)
        input_wait = self._batches.waited - self._waited
        self.restart(step)
        speed = {
            "images_per_second": self._config.data.batch_size / seconds_per_step,
            "seconds_remaining": seconds_per_step * (self._config.steps - step),
            "input_wait_fraction": input_wait / seconds,
        }
        if self._peak:
            flops = training_flops(self._config.model, self._config.data.batch_size)
            speed["mfu"] = flops / seconds_per_step / self._peak
        return speed
