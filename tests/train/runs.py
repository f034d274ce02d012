"""A training run small enough to be interrupted in every test."""

import dataclasses
import itertools

import jax
import numpy as np

import igpt_jax as ig
from igpt_jax.config import DataConfig, EvaluateConfig, OptimizerConfig, RunConfig
from igpt_jax.data.palette import Palette
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.loop import fit
from igpt_jax.train.metrics import read_metrics

CONFIG = RunConfig(
    steps=6,
    log_every=1,
    checkpoint_every=2,
    model=ig.ModelConfig(layers=1, width=16, heads=2, resolution=3, vocabulary=4),
    data=DataConfig(batch_size=8),
    optimizer=OptimizerConfig(learning_rate=1e-2),
    evaluate=EvaluateConfig(every=3),
)
PALETTE = Palette(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3))


def batches_from(step):
    for number in itertools.count(step):
        tokens = np.random.default_rng(number).integers(0, 4, (8, 9)).astype(np.int32)
        yield {"tokens": tokens, "index": np.arange(8 * number, 8 * number + 8, dtype=np.int32)}


def batches_cut_off_at_5(step):
    for number, batch in enumerate(batches_from(step), start=step):
        if number == 5:
            raise KeyboardInterrupt
        yield batch


def evaluate(params):
    return {"test/nats_per_token": np.asarray(params["sos"]).sum()}


def train(workdir, devices=1, config=CONFIG, **options):
    workdir.mkdir(exist_ok=True)
    mesh = make_mesh(config.parallel, jax.devices()[:devices])
    options = {"batches_from": batches_from, "evaluate": evaluate, "palette": PALETTE} | options
    return fit(config, workdir, images_per_epoch=16, mesh=mesh, **options)


def with_options(**options):
    return dataclasses.replace(CONFIG, **options)


def metrics_of(workdir):
    """The metrics, without what no two runs share."""
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{k: x for k, x in line.items() if "second" not in k and "wait" not in k} for line in lines]


def checkpoints_in(workdir):
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def assert_equal(state, workdir, undisturbed):
    """The state and the metrics are those of the undisturbed run, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, state, undisturbed[0])
    assert metrics_of(workdir) == undisturbed[1]


def cut_off(function, at):
    """The function, or iterator, that is interrupted at its call of this number."""
    calls = 0

    def cut(argument):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return function(argument)

    return cut
