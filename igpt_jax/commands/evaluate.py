"""Measures a trained model: likelihood, accuracy, and linear probes beside their baselines."""

import contextlib
import dataclasses
import json
import pathlib
import time
from typing import Any

import numpy as np
from absl import flags

from igpt_jax.commands.probes import measure_probes, print_probes
from igpt_jax.commands.report import report
from igpt_jax.commands.run import Run, saved_config
from igpt_jax.config import RunConfig
from igpt_jax.data.sources import describe_source
from igpt_jax.errors import InputError
from igpt_jax.evaluate.accuracy import percentage, predict
from igpt_jax.evaluate.forward import mean_nats
from igpt_jax.evaluate.vote import modal_vote
from igpt_jax.files import atomic_write
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.state import abstract_params
from igpt_jax.types import Params
from igpt_jax.weights.stream import Weights

FEW_IMAGES = 100  # fewer test images than that, and the figures say so


def main(config: RunConfig | None, workdir: pathlib.Path, options: flags.FlagValues) -> None:
    """Measures and draws the checkpoint that the run results in, or the one of --step.

    Writes WORKDIR/evaluation.json and WORKDIR/report/.  In a workdir without checkpoints whose config has
    `initialize_from`, it measures that model on the config's data.
    """
    start = time.perf_counter()
    config = config or saved_config(workdir)
    if options.split:
        measured = dataclasses.replace(config.evaluate, split=options.split)
        config = dataclasses.replace(config, evaluate=measured, keep_best="", stop_after=0)  # the best is known by now
    run = Run.open(config, workdir)
    if options.probe and not run.train_source.classes:
        raise InputError(f"data.name={config.data.name} has no labels, so --probe has nothing to predict; leave it out")
    with contextlib.ExitStack() as stack:
        if origin := measured_origin(run, options.step):
            stack.enter_context(run.hold_workdir())
            step, params = origin.step, run.initial_params()
        else:
            step, params = restore(run, options.step)
        evaluate(run, params, step, start, probed=is_probed(run) if options.probe is None else options.probe)
        if options.report:
            report(run, params)


def measured_origin(run: Run, step: int | None = None) -> Weights | None:
    """Returns the run's origin where that is the model to measure, since the run has no checkpoint of its own.

    Raises:
      InputError: the origin cannot be measured as the options ask.
    """
    with contextlib.closing(Checkpoints(run.workdir)) as checkpoints:
        if checkpoints.steps or not run.origin:
            return None
    name, classes = run.config.initialize_from, run.config.model.classes
    if step is not None:
        raise InputError(
            f"{run.workdir} has no checkpoints, so --step={step} names none; for one of a workdir that "
            f"initialize_from={name} may be, set initialize_from=DIR/checkpoints/{step}"
        )
    if classes:
        raise InputError(
            f"{run.workdir} has no checkpoint, and nothing has trained the head of its {classes} classes; train it, "
            f"or, to probe initialize_from={name}, set model.classes=0 and objective.class_weight=0"
        )
    return run.origin


def restore(run: Run, step: int | None = None) -> tuple[int, Params]:
    """Returns the step and the parameters of the checkpoint that the run results in, or of the given step."""
    like = abstract_params(run.model, run.mesh)
    with contextlib.closing(Checkpoints(run.workdir)) as checkpoints:
        if step is None:
            return checkpoints.result(lambda step: (step, checkpoints.restore_params(step, like)))
        if step not in checkpoints.steps:
            steps = ", ".join(map(str, checkpoints.steps)) or "of no step"
            raise InputError(f"there is no checkpoint --step={step} in {run.workdir}, which has those {steps}")
        return step, checkpoints.restore_params(step, like)


def is_probed(run: Run) -> bool:
    """Whether linear probes measure what the model has learned: its images have labels, and it has not seen them."""
    return run.train_source.classes > 0 and not run.config.objective.class_weight


def evaluate(run: Run, params: Params, step: int, start: float, *, probed: bool) -> None:
    """Measures a model, prints the figures, and writes evaluation.json.

    Args:
      run: with the images of `config.evaluate.split`.
      params: of the model.
      step: of the checkpoint, for the file.
      start: of `time.perf_counter`, from which the file's `wall_seconds` count.
      probed: whether linear probes are fitted too.  The accuracy of a class head is always measured.
    """
    split, images = run.config.evaluate.split, len(run.test_source)
    nats = mean_nats(run.model, params, run.test_examples(task="likelihood"), run.mesh)
    result: dict[str, Any] = {"step": step, "images": images, "nats_per_token": {split: nats}}
    result["training_images"] = len(run.train_source)
    if description := describe_source(run.config.data):
        result["data"] = description
    if run.config.evaluate.views > 1:
        result["views"] = run.config.evaluate.views
    if run.config.model.classes:
        accuracy, accuracy_of_vote = measure_accuracy(run, params, run.masks)
        result["accuracy"] = {split: accuracy}
        if run.masks > 1:
            result["accuracy_vote"] = {split: accuracy_of_vote}
    if probed:
        result["probe"] = measure_probes(run, params)
    if not is_primary_process():
        return
    result["wall_seconds"] = time.perf_counter() - start
    with atomic_write(run.workdir / "evaluation.json") as partial:
        partial.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{split}: {nats:.4f} nats/token")
    if run.config.model.classes:
        vote = f", {accuracy_of_vote:.1f} % by the vote of {run.masks} masks" if run.masks > 1 else ""
        print(f"{split}: {accuracy:.1f} % right{vote}")
    if probed:
        print_probes(result["probe"], run.config.model.layers)
    if images < FEW_IMAGES:
        counted = f"{images} images" if images > 1 else "1 image"
        print(
            f"these figures are of {counted} of the {split} split, too few to compare models by: one image is "
            f"{100 / images:.3g} % of accuracy"
        )


def measure_accuracy(run: Run, params: Params, masks: int) -> tuple[float, float]:
    """Returns how many per cent of the evaluation images' views the class head names rightly, and so by a vote.

    A "bert" model sees each view under `masks` independent masks.  The first number is the mean over them, the second
    that of the class which most of them name (paper, section 4.6).
    """
    examples = [run.test_examples(draw, task="accuracy") for draw in range(masks)]
    predictions = [predict(run.model, params, examples_of_draw, run.mesh) for examples_of_draw in examples]
    predictions_nb, labels_b = np.stack([predictions_b for predictions_b, _ in predictions]), predictions[0][1]
    vote_b = modal_vote(predictions_nb, run.config.seed)
    return percentage(predictions_nb, labels_b), percentage(vote_b, labels_b)
