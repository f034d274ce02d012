"""Pretrains or fine-tunes a model, then measures it and draws the report."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags

from igpt_jax.commands.evaluate import evaluate, is_probed, measure_accuracy, restore
from igpt_jax.commands.inputs import say_slow_dtype
from igpt_jax.commands.probes import probe_scalars
from igpt_jax.commands.report import report
from igpt_jax.commands.run import Run
from igpt_jax.config import RunConfig
from igpt_jax.errors import Preempted
from igpt_jax.evaluate.forward import mean_nats
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.storage import mirrored
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.loop import fit
from igpt_jax.train.optimizer import warmup_steps
from igpt_jax.train.preemption import Preemption
from igpt_jax.train.replay import replay
from igpt_jax.types import Params


def main(config: RunConfig, workdir: pathlib.Path, options: flags.FlagValues) -> None:
    """Fills WORKDIR: checkpoints, metrics.jsonl, TensorBoard events, evaluation.json and report/.

    With --replay=STEP writes nothing, and shows what each image of that step's batch did to the loss.
    """
    start = time.perf_counter()
    with Preemption() as preemption:
        run = Run.open(config, workdir)
        if options.replay is not None:
            _replay(run, options.replay)
            return
        with run.hold_workdir():
            try:
                with mirrored(workdir / "profile") as profile:
                    step, params = train(run, preemption, _profilers(profile) if options.profile else ())
                evaluate(run, params, step, start, probed=is_probed(run))
            except Preempted as notice:
                raise Preempted(f"{notice}; {_standing(workdir)}; run the same command again to go on") from None
            if options.report:
                report(run, params)


def _say_warmup(run: Run) -> None:
    """One line where the warm-up is shorter than the config says, since the run is short."""
    config, steps_per_epoch = run.config.optimizer, len(run.train_source) / run.config.data.batch_size
    wanted = round(config.warmup_epochs * steps_per_epoch)
    taken = warmup_steps(config, steps=run.config.steps, steps_per_epoch=steps_per_epoch)
    if taken < wanted and is_primary_process():
        print(
            f"warm-up: {taken} steps, a quarter of the run; optimizer.warmup_epochs={config.warmup_epochs:g} would be "
            f"{wanted} of its {run.config.steps}",
            flush=True,
        )


def train(
    run: Run, preemption: Preemption | None = None, hooks: Sequence[Callable[[int], object]] = ()
) -> tuple[int, Params]:
    """Trains the model of a run, or resumes; see `fit`.

    Returns:
      The step that the run results in, which is the best one if `config.keep_best` asks for it, and its parameters.
    """

    def measure(params: Params) -> dict[str, float]:
        nats = mean_nats(run.model, params, run.test_examples(), run.mesh)
        scalars = {f"{run.config.evaluate.split}/nats_per_token": nats}
        if run.config.model.classes:
            scalars[f"{run.config.evaluate.split}/accuracy"], _ = measure_accuracy(run, params, masks=1)
        return scalars | (probe_scalars(run, params) if is_probed(run) else {})

    _say_warmup(run)
    say_slow_dtype(run.config.model, run.mesh)
    state = fit(
        run.config,
        run.workdir,
        palette=run.palette,
        images_per_epoch=len(run.train_source),
        batches_from=run.batches_from,
        evaluate=measure,
        mesh=run.mesh,
        initial_params=run.initial_params,
        preemption=preemption,
        hooks=hooks,
    )
    step, params = int(np.asarray(state.step)), state.params
    if run.config.keep_best:
        del state, params
        last, (step, params) = step, restore(run)
        if is_primary_process():
            print(f"{run.config.keep_best} was best after step {step} of {last}")
    return step, params


def _replay(run: Run, step: int) -> None:
    replay(
        run.config,
        run.workdir,
        step,
        images_per_epoch=len(run.train_source),
        batches_from=run.batches_from,
        mesh=run.mesh,
        initial_params=run.initial_params,
    )


def _standing(workdir: pathlib.Path) -> str:
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        return f"the checkpoint of step {checkpoints.steps[0]} is saved" if checkpoints.steps else "no step was taken"


def _profilers(directory: pathlib.Path) -> list[Any]:
    """Traces five steps, from the tenth on, for TensorBoard's profiler; and again every hour."""
    from clu.periodic_actions import Profile

    return [Profile(logdir=directory, first_profile=10, num_profile_steps=5, profile_duration_ms=None)]
