"""Pretrains a model, then measures it and draws the report."""

import pathlib
import time

import numpy as np

from igpt_jax.commands.evaluate import evaluate, probe_features, report
from igpt_jax.commands.run import Run
from igpt_jax.config import RunConfig
from igpt_jax.evaluate.forward import mean_nats
from igpt_jax.train.loop import fit


def main(config: RunConfig, workdir: pathlib.Path, options) -> None:
    """Fills WORKDIR: checkpoints, metrics.jsonl, TensorBoard events, evaluation.json and report/."""
    del options
    start = time.perf_counter()
    run = Run.open(config, workdir)

    def measure(params):
        nats = mean_nats(run.model, params, run.examples(run.test), run.mesh)
        scalars = {f"{config.evaluate.split}/nats_per_token": nats}
        if not run.train.classes:
            return scalars
        probe = probe_features(run, params)
        accuracies = {f"probe/layer_{n:02d}": x for n, x in zip(probe.layers, probe.accuracy_l, strict=True)}
        return scalars | {"probe/accuracy": probe.accuracy} | accuracies

    state = fit(
        config,
        workdir,
        palette=run.palette,
        images_per_epoch=len(run.train),
        batches_from=run.batches_from,
        evaluate=measure,
        mesh=run.mesh,
    )
    evaluate(run, state.params, int(np.asarray(state.step)), start)
    report(run, state.params)
