"""The pictures of WORKDIR/report/: curves, samples, completions, surprise maps and the palette."""

import json
import pathlib

import numpy as np

from igpt_jax.codes.codec import Codec
from igpt_jax.commands.run import Run
from igpt_jax.evaluate.likelihood import likelihood
from igpt_jax.generate.complete import complete
from igpt_jax.generate.infill import hidden_square, infill
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.report.curves import plot_loss, plot_low_data, plot_probe
from igpt_jax.report.sheets import (
    plot_completions,
    plot_palette,
    plot_reconstructions,
    plot_surprise,
    save_samples,
)
from igpt_jax.storage import mirrored
from igpt_jax.train.metrics import METRICS, read_metrics
from igpt_jax.types import Params

# Test images that are shown with the palette, with surprise maps, and completed; completions of each; samples.
PICTURED, SURPRISES, COMPLETED, COMPLETIONS, SAMPLED = 12, 12, 6, 4, 100


def report(run: Run, params: Params) -> None:
    """Draws every picture of WORKDIR/report/.  All processes compute, and the primary one draws."""
    with mirrored(run.workdir / "report") as directory:
        _draw(run, params, directory)
    if is_primary_process():
        print(f"pictures: {run.workdir / 'report'}")


def _draw(run: Run, params: Params, directory: pathlib.Path) -> None:
    if run.config.model.causal:
        draw_generated(run, params, directory)
    else:
        draw_infills(run, params, directory)
    tokens_bt = next(run.examples(run.test_source))["tokens"][:SURPRISES]
    nats_bt = likelihood(run.model, params, tokens_bt, mesh=run.mesh)
    if not is_primary_process():
        return
    images = run.palette.decode(tokens_bt)
    side = run.config.model.resolution
    plot_surprise(directory / "surprise.png", images, nats_bt.reshape(-1, side, side))
    pictures = run.pictures(PICTURED)
    if isinstance(run.palette, Codec):
        decoded = run.palette.decode(run.palette.encode(pictures))
        plot_reconstructions(directory / "reconstructions.png", pictures, decoded)
    else:
        plot_palette(directory / "palette.png", run.palette, pictures)
    _plot_curves(run, directory)


def _plot_curves(run: Run, directory: pathlib.Path) -> None:
    """Draws the loss, and the probes where there are any, from metrics.jsonl and evaluation.json."""
    evaluation = json.loads((run.workdir / "evaluation.json").read_text())
    split = run.config.evaluate.split
    last = {"step": evaluation["step"], f"{split}/nats_per_token": evaluation["nats_per_token"][split]}
    metrics = sorted([*read_metrics(run.workdir / METRICS), last], key=lambda line: line["step"])
    plot_loss(directory / "loss.png", metrics, split, len(run.palette))
    if probe := evaluation.get("probe"):
        baselines = {"untrained": probe["untrained"], "raw pixels": probe["raw_pixels"]}
        if together := probe.get("concatenated"):
            baselines["layers " + ", ".join(map(str, together["layers"])) + " together"] = together["accuracy"]
        curves = {"trained": probe["layers"]}
        if vote := probe.get("vote"):
            curves[f"vote of {vote['masks']} masks"] = vote["layers"]
        plot_probe(directory / "probe_by_layer.png", probe["layer_numbers"], curves, baselines)
        if rows := probe.get("low_data"):
            labels = [row["labels_per_class"] for row in rows]
            curves = {"best layer": rows, "raw pixels": [row["raw_pixels"] for row in rows]}
            plot_low_data(directory / "low_data.png", labels, curves)


def draw_generated(run: Run, params: Params, directory: pathlib.Path) -> None:
    """Draws samples, and completions of test images from their upper half."""
    seed, resolution = run.config.seed, run.config.model.resolution
    nothing_bt = np.zeros((1, 0), np.int32)
    samples_bt = complete(run.model, params, nothing_bt, n=SAMPLED, seed=seed, mesh=run.mesh).tokens[0]
    originals_bt = next(run.examples(run.test_source))["tokens"][:COMPLETED]
    given = resolution // 2 * resolution
    completions_bnt = complete(
        run.model, params, originals_bt[:, :given], n=COMPLETIONS, seed=seed, mesh=run.mesh
    ).tokens
    hidden_bt = np.broadcast_to(np.arange(resolution**2) >= given, originals_bt.shape)
    if is_primary_process():
        save_samples(directory / "samples.png", run.palette.decode(samples_bt))
        plot_completions(directory / "completions.png", run.palette, originals_bt, completions_bnt, hidden_bt)


def draw_infills(run: Run, params: Params, directory: pathlib.Path) -> None:
    """Draws test images with a hidden square, filled: what a BERT model has in place of samples and completions."""
    originals_bt = next(run.examples(run.test_source))["tokens"][:COMPLETED]
    hidden_bt = np.broadcast_to(hidden_square(run.config.model.resolution).reshape(-1), originals_bt.shape)
    infills_bnt = infill(run.model, params, originals_bt, hidden_bt, n=COMPLETIONS, seed=run.config.seed, mesh=run.mesh)
    if is_primary_process():
        plot_completions(directory / "infills.png", run.palette, originals_bt, infills_bnt, hidden_bt)
