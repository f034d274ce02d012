"""The training loop: batches in, metrics, evaluations and checkpoints out, whatever interrupts it."""

import contextlib
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.errors import Preempted
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.processes import broadcast_from_primary, is_primary_process
from igpt_jax.train.best import has_stalled
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.compile import compile_train_step, device_memory
from igpt_jax.train.metrics import METRICS, read_metrics
from igpt_jax.train.optimizer import optimizer_and_schedule
from igpt_jax.train.preemption import Preemption
from igpt_jax.train.prefetch import DeviceBatches
from igpt_jax.train.record import Record
from igpt_jax.train.remat import remember_remat, remembered_remat
from igpt_jax.train.retention import retention
from igpt_jax.train.stall import announcing_stalls
from igpt_jax.train.start import beginning
from igpt_jax.train.state import TrainState, abstract_state
from igpt_jax.types import HostBatch, Params


def fit(
    config: RunConfig,
    workdir: pathlib.Path,
    *,
    palette: Tokenizer,
    images_per_epoch: int,
    batches_from: Callable[[int], Iterator[HostBatch]],
    evaluate: Callable[[Params], dict[str, float]],
    mesh: Mesh,
    initial_params: Callable[[], Params] | None = None,
    preemption: Preemption | None = None,
    hooks: Sequence[Callable[[int], object]] = (),
) -> TrainState:
    """Trains a model, from its newest checkpoint if there is one, and resumes as if it had never been interrupted.

    A step depends only on the seed, its number and the state before it.  So however often training is interrupted and
    called again, states, metrics and evaluations are those of one undisturbed run.

    Args:
      config: the run.  Training ends after `config.steps`, or earlier if `config.stop_after` evaluations have brought
        no improvement.
      workdir: receives checkpoints, metrics.jsonl and TensorBoard events.
      palette: saved with every checkpoint.
      images_per_epoch: number of training images; sets the length of the warm-up.
      batches_from: from a 0-based step to an iterator over this process's part of all batches from that step on, with
        "tokens" (b, t) int32 and the images' "index" (b,).
      evaluate: from parameters to scalars.  Called every `config.evaluate.every` steps, and after the last one if
        `config.keep_best` needs to know whether it is the best.
      mesh: devices.
      initial_params: makes the parameters of step 0, which are drawn from the seed without it.  Not called if there is
        a checkpoint or a `config.continue_from`.
      preemption: says when to stop early.  Without it, nothing does.
      hooks: called with the number of every step after it has been dispatched, such as clu's periodic actions.

    Returns:
      The state after the last step.

    Raises:
      InputError: more than `config.optimizer.skip_spikes` losses or gradients are not finite, a file cannot be written,
        or an option cannot work.
      Preempted: a signal has arrived; everything is saved, and the next call continues.
    """
    preemption = preemption or Preemption()
    model = ImageGPT(config.model)
    optimizer, schedule = optimizer_and_schedule(config, images_per_epoch)
    with contextlib.ExitStack() as stack:
        keep = retention(config, workdir / METRICS)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, keep)))
        state = checkpoints.resume(abstract_state(model, optimizer, mesh), palette)
        if state is None:
            state = beginning(config, model, optimizer, mesh, initial_params)
        start = int(state.step)
        if _has_ended(config, workdir, start):
            checkpoints.remove_old()
            return state

        # The batches of a resumed run begin where the checkpoint ends, since a batch is a function of seed and step.
        device_batches = DeviceBatches(batches_from(start), mesh)
        batches = stack.enter_context(announcing_stalls(device_batches))
        first_batch = next(batches)
        batches = itertools.chain([first_batch], batches)
        remembered = dataclasses.replace(config.model, remat=remembered_remat(workdir, config, mesh))
        step_config = dataclasses.replace(config, model=remembered)
        step_function, remat = compile_train_step(step_config, optimizer, mesh, state, first_batch, device_memory())
        remember_remat(workdir, config, mesh, remat)

        record = stack.enter_context(contextlib.closing(Record(config, workdir, state, schedule, device_batches)))
        # From here on a signal waits until a step is complete, so that the state that is saved is whole.
        stack.enter_context(preemption.held())
        try:
            step, ended = start, False
            # A run that was killed between its checkpoint and its evaluation makes up for the evaluation.
            if _evaluates_after(config, start) and not record.evaluated:
                record.write_evaluation(start, _interruptible(preemption, evaluate, state.params))
                ended = _has_ended(config, workdir, start)
            while step < config.steps and not ended:
                step += 1
                batch = _interruptible(preemption, next, batches)
                state, metrics = step_function(state, batch)
                record.add(step, batch, metrics)
                for hook in hooks:
                    hook(step)
                if preemption.reached(step):
                    raise preemption.notice
                evaluates = _evaluates_after(config, step)
                if step % config.checkpoint_every == 0 or step == config.steps or evaluates:
                    record.flush()
                    checkpoints.save(state, config, palette)
                if evaluates:
                    record.write_evaluation(step, _interruptible(preemption, evaluate, state.params))
                    ended = _has_ended(config, workdir, step)
            checkpoints.remove_old()
        except Preempted:
            record.flush()
            checkpoints.save(state, config, palette)
            raise
    return state


def _evaluates_after(config: RunConfig, step: int) -> bool:
    if step == config.steps:
        return bool(config.keep_best)
    return config.evaluate.every > 0 and step % config.evaluate.every == 0 and step > 0


def _has_ended(config: RunConfig, workdir: pathlib.Path, step: int) -> bool:
    """Whether training is complete after this step.  The primary process reads the metrics and decides for all."""
    if not config.keep_best:
        return step >= config.steps
    lines = [line for line in read_metrics(workdir / METRICS) if line["step"] <= step] if is_primary_process() else []
    complete = any(line["step"] == config.steps and config.keep_best in line for line in lines)
    stalled = config.stop_after > 0 and has_stalled(lines, config.keep_best, config.stop_after)
    return bool(broadcast_from_primary(np.array([complete or stalled]))[0])


def _interruptible(preemption: Preemption, function: Callable[[Any], Any], argument: Any) -> Any:
    """Calls a function that may take long and changes nothing, and lets a signal interrupt it."""
    with preemption.held(False):
        return function(argument)
