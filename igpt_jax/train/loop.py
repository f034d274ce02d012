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
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.optimizer import adam, learning_rate_schedule
from igpt_jax.train.preemption import Preemption
from igpt_jax.train.prefetch import DeviceBatches
from igpt_jax.train.record import Record
from igpt_jax.train.retention import retention
from igpt_jax.train.stall import announcing_stalls
from igpt_jax.train.state import TrainState, abstract_state, compile_run, device_memory, init_state


def fit(
    config: RunConfig,
    workdir: pathlib.Path,
    *,
    palette: Palette,
    images_per_epoch: int,
    batches_from: Callable[[int], Iterator[dict[str, np.ndarray]]],
    evaluate: Callable[[dict], dict[str, float]],
    mesh: Mesh,
    preemption: Preemption | None = None,
    hooks: Sequence[Callable[[int], object]] = (),
) -> TrainState:
    """Trains to `config.steps`, from the newest checkpoint in `workdir` or from the start.

    However often it is interrupted and called again, states, metrics and evaluations are those of one undisturbed run:
    a step depends on the seed, its number and the state before it alone.

    Args:
      palette: saved with every checkpoint.
      images_per_epoch: sets the length of the warm-up.
      batches_from: gives this process's part of every batch from a step (0-based) on, with the images' "index".
      evaluate: from parameters to scalars; called every `config.evaluate.every` steps, and not after the last.
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
    optimizer = adam(config.optimizer, schedule)
    with contextlib.ExitStack() as stack:
        keep = retention(config, workdir / "metrics.jsonl")
        checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir, keep)))
        state = checkpoints.resume(abstract_state(model, optimizer, mesh), palette)
        state = state or init_state(model, optimizer, config.seed, mesh)
        start = int(state.step)
        if start >= config.steps:
            return state

        device_batches = DeviceBatches(batches_from(start), mesh)
        batches = stack.enter_context(announcing_stalls(device_batches))
        first_batch = next(batches)
        batches = itertools.chain([first_batch], batches)
        step_function, _ = compile_run(config, optimizer, mesh, state, first_batch, device_memory())

        record = stack.enter_context(contextlib.closing(Record(config, workdir, state, schedule, device_batches)))
        stack.enter_context(preemption.held())
        try:
            if _evaluates_after(config, start) and not record.evaluated:
                record.write_evaluation(start, _interruptible(preemption, evaluate, state.params))
            for step in range(start + 1, config.steps + 1):
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
        except Preempted:
            record.flush()
            checkpoints.save(state, config, palette)
            raise
    return state


def _evaluates_after(config, step):
    return config.evaluate.every > 0 and step % config.evaluate.every == 0 and 0 < step < config.steps


def _interruptible(preemption, function, argument):
    """Calls what may take long and changes nothing, so that a signal need not wait for it."""
    with preemption.held(False):
        return function(argument)
