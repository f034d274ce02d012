"""The training loop: batches in, metrics, evaluations and checkpoints out."""

import contextlib
import itertools
import math
import pathlib
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.model.flops import peak_flops, training_flops
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import objective_function
from igpt_jax.parallel.processes import is_first
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.metrics import JsonLines, Progress, TensorBoard
from igpt_jax.train.optimizer import adam, learning_rate_schedule
from igpt_jax.train.prefetch import DeviceBatches
from igpt_jax.train.state import TrainState, abstract_state, compile_step, init_state


def fit(
    config: RunConfig,
    workdir: pathlib.Path,
    *,
    palette: Palette,
    images_per_epoch: int,
    batches_from: Callable[[int], Iterator[dict[str, np.ndarray]]],
    evaluate: Callable[[dict], dict[str, float]],
    mesh: Mesh,
) -> TrainState:
    """Trains to `config.steps`, from the newest checkpoint in `workdir` or from the start.

    Args:
      palette: saved with every checkpoint.
      images_per_epoch: sets the length of the warm-up.
      batches_from: gives this process's part of every batch from a step (0-based) on.
      evaluate: from parameters to scalars; called every `config.evaluate.every` steps, and not after the last.
    Returns:
      The state after the last step.
    Raises:
      InputError: the loss is no longer finite, or an option cannot work.
    """
    model = ImageGPT(config.model)
    schedule = learning_rate_schedule(
        config.optimizer, steps=config.steps, steps_per_epoch=images_per_epoch / config.data.batch_size
    )
    optimizer = adam(config.optimizer, schedule)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, keep=config.keep_checkpoints)))
        if checkpoints.latest_step is None:
            state = init_state(model, optimizer, config.seed, mesh)
        else:
            state = checkpoints.restore(checkpoints.latest_step, abstract_state(model, optimizer, mesh))
        start = int(state.step)
        if start >= config.steps:
            return state

        batches = DeviceBatches(batches_from(start), mesh)
        first_batch = next(batches)
        step_function = compile_step(model, optimizer, objective_function(config.objective), config.seed, mesh)
        step_function = step_function.lower(state, first_batch).compile()

        files, progress = [], []
        if is_first():
            files = [JsonLines(workdir / "metrics.jsonl", start), TensorBoard(workdir)]
            progress = [Progress(start, config.steps)]
        for writer in files + progress:
            stack.enter_context(contextlib.closing(writer))
        clock = _Clock(config, start, batches)
        steps = range(start + 1, config.steps + 1)
        for step, batch in zip(steps, itertools.chain([first_batch], batches), strict=False):
            state, metrics = step_function(state, batch)
            if step % config.log_every == 0 or step == config.steps:
                scalars = _finite(jax.device_get(metrics), step) | clock.lap(step)
                scalars["learning_rate"] = float(schedule(step - 1))
                for writer in files + progress:
                    writer.write_scalars(step, scalars)
            if step % config.checkpoint_every == 0 or step == config.steps:
                checkpoints.save(state, config, palette)
            if config.evaluate.every and step % config.evaluate.every == 0 and step < config.steps:
                scalars = evaluate(state.params)
                for writer in files:
                    writer.write_scalars(step, scalars)
                clock.restart(step)
    return state


def _finite(metrics, step):
    scalars = {name: float(value) for name, value in metrics.items()}
    if not all(map(math.isfinite, scalars.values())):
        raise InputError(f"the metrics are no longer finite at step {step}: {scalars}; lower optimizer.learning_rate")
    return scalars


class _Clock:
    """Speed since the last lap; evaluations and compilation do not count."""

    def __init__(self, config, start, batches):
        self._config, self._peak, self._batches = config, peak_flops(), batches
        self.restart(start)

    def restart(self, step):
        self._step, self._time, self._waited = step, time.perf_counter(), self._batches.waited

    def lap(self, step):
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
