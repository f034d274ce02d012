"""The training loop: batches in, metrics, evaluations and checkpoints out, whatever interrupts it."""

import contextlib
import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import Preempted
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.processes import broadcast_from_primary, is_primary_process
from igpt_jax.train.best import has_stalled
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.metrics import METRICS, read_metrics
from igpt_jax.train.optimizer import learning_rate_schedule, make_optimizer
from igpt_jax.train.preemption import Preemption
from igpt_jax.train.prefetch import DeviceBatches
from igpt_jax.train.record import Record
from igpt_jax.train.retention import retention
from igpt_jax.train.stall import announcing_stalls
from igpt_jax.train.start import beginning
from igpt_jax.train.state import TrainState, abstract_state, compile_train_step, device_memory


def fit(
    config: RunConfig,
    workdir: pathlib.Path,
    *,
    palette: Palette,
    images_per_epoch: int,
    batches_from: Callable[[int], Iterator[dict[str, np.ndarray]]],
    evaluate: Callable[[dict], dict[str, float]],
    mesh: Mesh,
    initial_params: Callable[[], dict] | None = None,
    preemption: Preemption | None = None,
    hooks: Sequence[Callable[[int], object]] = (),
) -> TrainState:
    """Trains to `config.steps` or until `config.stop_after` says enough, from the newest checkpoint or the start.

    However often it is interrupted and called again, states, metrics and evaluations are those of one undisturbed run:
    a step depends on the seed, its number and the state before it alone, and the end on the evaluations in
    metrics.jsonl.

    Args:
      palette: saved with every checkpoint.
      images_per_epoch: sets the length of the warm-up.
      batches_from: gives this process's part of every batch from a step (0-based) on, with the images' "index".
      evaluate: from parameters to scalars; called every `config.evaluate.every` steps, and after the last one only
        where it may be the best (`config.keep_best`).
      initial_params: gives the parameters of step 0, where no checkpoint is newer and `config.continue_from` not
        given; the seed draws them without it.
      preemption: says when to stop early; nothing does without it.
      hooks: called with the number of every step begun, such as clu's periodic actions.

    Returns:
      The state after the last step.

    Raises:
      InputError: more than `config.optimizer.skip_spikes` losses or gradients are not finite, a file cannot be written,
        or an option cannot work.
      Preempted: everything is saved, and the next call goes on.
    """
    preemption = preemption or Preemption()
    model = ImageGPT(config.model)
    schedule = learning_rate_schedule(
        config.optimizer, steps=config.steps, steps_per_epoch=images_per_epoch / config.data.batch_size
    )
    optimizer = make_optimizer(config.optimizer, schedule, config.model.dtype)
    with contextlib.ExitStack() as stack:
        keep = retention(config, workdir / METRICS)
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, keep)))
        state = checkpoints.resume(abstract_state(model, optimizer, mesh), palette)
        if state is None:
            state = beginning(config, model, optimizer, mesh, initial_params)
        start = int(state.step)
        if _has_ended(config, workdir, start):
            return state

        device_batches = DeviceBatches(batches_from(start), mesh)
        batches = stack.enter_context(announcing_stalls(device_batches))
        first_batch = next(batches)
        batches = itertools.chain([first_batch], batches)
        step_function, _ = compile_train_step(config, optimizer, mesh, state, first_batch, device_memory())

        record = stack.enter_context(contextlib.closing(Record(config, workdir, state, schedule, device_batches)))
        stack.enter_context(preemption.held())
        try:
            step, ended = start, False
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
        except Preempted:
            record.flush()
            checkpoints.save(state, config, palette)
            raise
    return state


def _evaluates_after(config, step):
    if step == config.steps:
        return bool(config.keep_best)
    return config.evaluate.every > 0 and step % config.evaluate.every == 0 and step > 0


def _has_ended(config, workdir, step):
    """Whether nothing is left to do after this step, by what the metrics up to it say; process 0 looks, for all."""
    if not config.keep_best:
        return step >= config.steps
    lines = [line for line in read_metrics(workdir / METRICS) if line["step"] <= step] if is_primary_process() else []
    complete = any(line["step"] == config.steps and config.keep_best in line for line in lines)
    stalled = config.stop_after > 0 and has_stalled(lines, config.keep_best, config.stop_after)
    return bool(broadcast_from_primary(np.array([complete or stalled]))[0])


def _interruptible(preemption, function, argument):
    """Calls what may take long and changes nothing, so that a signal need not wait for it."""
    with preemption.held(False):
        return function(argument)
