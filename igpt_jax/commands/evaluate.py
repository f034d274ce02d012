"""Measures a trained model: held-out likelihood, accuracy, and linear probes beside their baselines."""

import contextlib
import dataclasses
import json
import pathlib
import time

import numpy as np

from igpt_jax.commands.probes import measure_probes, print_probes
from igpt_jax.commands.run import Run, saved_config
from igpt_jax.config import RunConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.accuracy import percentage, predict
from igpt_jax.evaluate.forward import mean_nats
from igpt_jax.evaluate.likelihood import likelihood
from igpt_jax.evaluate.vote import modal_vote
from igpt_jax.files import atomic_write
from igpt_jax.generate.complete import complete
from igpt_jax.generate.infill import hidden_square, infill
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.report.curves import plot_loss, plot_low_data, plot_probe
from igpt_jax.report.sheets import plot_completions, plot_palette, plot_surprise, save_samples
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.metrics import METRICS, read_metrics
from igpt_jax.train.state import abstract_params

# In the report: test images shown with the palette, with surprise maps, and completed; completions of each; samples.
PICTURED, SURPRISES, COMPLETED, COMPLETIONS, SAMPLED = 12, 12, 6, 4, 100


def main(config: RunConfig, workdir: pathlib.Path, options) -> None:
    """Writes WORKDIR/evaluation.json and WORKDIR/report/ for what the run results in, or for the checkpoint of --step.

    A work dir without checkpoints, whose config has `initialize_from`, becomes the place where that model is measured
    on the config's data.  --split measures on other images than the config, and --probe has a fine-tuned model probed
    too.
    """
    start = time.perf_counter()
    config = config or saved_config(workdir)
    if options.split:
        measured = dataclasses.replace(config.evaluate, split=options.split)
        config = dataclasses.replace(config, evaluate=measured, keep_best="", stop_after=0)  # the best is known by now
    run = Run.open(config, workdir)
    with contextlib.ExitStack() as stack:
        if measures_origin(run, options.step):
            stack.enter_context(run.hold_workdir())
            step, params = run.origin.step, run.initial_params()
        else:
            step, params = restore(run, options.step)
        evaluate(run, params, step, start, probed=is_probed(run) if options.probe is None else options.probe)
        if options.report:
            report(run, params)


def measures_origin(run: Run, step: int | None = None) -> bool:
    """Whether the model to measure is the run's origin, since the run has no checkpoint of its own.

    Raises InputError where the origin cannot be measured as the options ask.
    """
    with contextlib.closing(Checkpoints(run.workdir)) as checkpoints:
        if checkpoints.steps or not run.config.initialize_from:
            return False
    origin, classes = run.config.initialize_from, run.config.model.classes
    if step is not None:
        raise InputError(
            f"{run.workdir} has no checkpoints, so --step={step} names none; for one of a work dir that "
            f"initialize_from={origin} may be, set initialize_from=DIR/checkpoints/{step}"
        )
    if classes:
        raise InputError(
            f"{run.workdir} has no checkpoint, and nothing has trained the head of its {classes} classes; train it, "
            f"or, to probe initialize_from={origin}, set model.classes=0 and objective.class_weight=0"
        )
    return True


def restore(run: Run, step: int | None = None) -> tuple[int, dict]:
    """The step and the parameters of the checkpoint that the run results in, or of that very step."""
    like = abstract_params(run.model, run.mesh)
    with contextlib.closing(Checkpoints(run.workdir)) as checkpoints:
        if step is None:
            return checkpoints.result(lambda step: (step, checkpoints.restore_params(step, like)))
        return step, checkpoints.restore_params(step, like)


def is_probed(run: Run) -> bool:
    """Whether linear probes are the measure of what the model learned: it was not shown the labels that there are."""
    return run.train_source.classes > 0 and not run.config.objective.class_weight


def evaluate(run: Run, params: dict, step: int, start: float, *, probed: bool) -> None:
    """Measures, process 0 writing evaluation.json; `start` (of `time.perf_counter`) begins its seconds.

    A model with a class head has its accuracy measured; `probed` says whether linear probes are fitted too.
    """
    split = run.config.evaluate.split
    result = {
        "step": step,
        "nats_per_token": {split: mean_nats(run.model, params, run.test_examples(), run.mesh)},
    }
    if run.config.evaluate.views > 1:
        result["views"] = run.config.evaluate.views
    if run.config.model.classes:
        accuracy, voted = measure_accuracy(run, params, run.masks)
        result["accuracy"] = {split: accuracy}
        if run.masks > 1:
            result["accuracy_vote"] = {split: voted}
    if probed:
        result["probe"] = measure_probes(run, params)
    if not is_primary_process():
        return
    result["wall_seconds"] = time.perf_counter() - start
    with atomic_write(run.workdir / "evaluation.json") as partial:
        partial.write_text(json.dumps(result, indent=2) + "\n")
    print(f"{split}: {result['nats_per_token'][split]:.4f} nats/token")
    if "accuracy" in result:
        vote = f", {voted:.1f} % by the vote of {run.masks} masks" if run.masks > 1 else ""
        print(f"{split}: {accuracy:.1f} % right{vote}")
    if "probe" in result:
        print_probes(result["probe"], run.config.model.layers)


def measure_accuracy(run: Run, params: dict, masks: int) -> tuple[float, float]:
    """Per cent of the evaluation images' views that the class head names rightly, and by the vote of several masks.

    A "bert" model sees each view under so many independent masks: the first number is the mean over them, the second
    that of the class which most of them name (paper, section 4.6).
    """
    found = [predict(run.model, params, run.test_examples(draw), run.mesh) for draw in range(masks)]
    predictions_nb, labels_b = np.stack([predictions_b for predictions_b, _ in found]), found[0][1]
    voted_b = modal_vote(predictions_nb, run.config.seed)
    return percentage(predictions_nb, labels_b), percentage(voted_b, labels_b)


def report(run: Run, params: dict) -> None:
    """Draws every picture of WORKDIR/report/; all processes compute, process 0 draws."""
    directory = run.workdir / "report"
    draw = draw_generated if run.config.model.causal else draw_infills
    draw(run, params, directory)
    tokens_bt = next(run.examples(run.test_source))["tokens"][:SURPRISES]
    nats_bt = likelihood(run.model, params, tokens_bt, mesh=run.mesh)
    if not is_primary_process():
        return
    images = run.palette.decode(tokens_bt)
    plot_surprise(directory / "surprise.png", images, nats_bt.reshape(images.shape[:3]))
    evaluation = json.loads((run.workdir / "evaluation.json").read_text())
    split = run.config.evaluate.split
    last = {"step": evaluation["step"], f"{split}/nats_per_token": evaluation["nats_per_token"][split]}
    metrics = sorted([*read_metrics(run.workdir / METRICS), last], key=lambda line: line["step"])
    plot_loss(directory / "loss.png", metrics, split, len(run.palette))
    if found := evaluation.get("probe"):
        baselines = {"untrained": found["untrained"], "raw pixels": found["raw_pixels"]}
        if together := found.get("concatenated"):
            baselines["layers " + ", ".join(map(str, together["layers"])) + " together"] = together["accuracy"]
        curves = {"trained": found["layers"]}
        if vote := found.get("vote"):
            curves[f"vote of {vote['masks']} masks"] = vote["layers"]
        plot_probe(directory / "probe_by_layer.png", found["layer_numbers"], curves, baselines)
        if rows := found.get("low_data"):
            labels = [row["labels_per_class"] for row in rows]
            curves = {"best layer": rows, "raw pixels": [row["raw_pixels"] for row in rows]}
            plot_low_data(directory / "low_data.png", labels, curves)
    plot_palette(directory / "palette.png", run.palette, run.pictures(PICTURED))
    print(f"pictures: {directory}")


def draw_generated(run: Run, params: dict, directory: pathlib.Path) -> None:
    """Shows samples, and completions of test images from their upper half."""
    settings = {"seed": run.config.seed, "mesh": run.mesh}
    samples_bt = complete(run.model, params, np.zeros((1, 0), np.int32), n=SAMPLED, **settings).tokens[0]
    originals_bt, resolution = next(run.examples(run.test_source))["tokens"][:COMPLETED], run.config.model.resolution
    given = resolution // 2 * resolution
    completions_bnt = complete(run.model, params, originals_bt[:, :given], n=COMPLETIONS, **settings).tokens
    hidden_bt = np.broadcast_to(np.arange(resolution**2) >= given, originals_bt.shape)
    if is_primary_process():
        save_samples(directory / "samples.png", run.palette.decode(samples_bt))
        plot_completions(directory / "completions.png", run.palette, originals_bt, completions_bnt, hidden_bt)


def draw_infills(run: Run, params: dict, directory: pathlib.Path) -> None:
    """Shows test images with a hidden square, filled: what a BERT model has in place of samples and completions."""
    originals_bt = next(run.examples(run.test_source))["tokens"][:COMPLETED]
    hidden_bt = np.broadcast_to(hidden_square(run.config.model.resolution).reshape(-1), originals_bt.shape)
    infills_bnt = infill(run.model, params, originals_bt, hidden_bt, n=COMPLETIONS, seed=run.config.seed, mesh=run.mesh)
    if is_primary_process():
        plot_completions(directory / "infills.png", run.palette, originals_bt, infills_bnt, hidden_bt)
