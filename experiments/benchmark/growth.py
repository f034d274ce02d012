"""How training, compilation and sampling grow with context, depth and length: a table and a plot."""

import dataclasses
import pathlib
import statistics
import time

import jax
import numpy as np

import igpt_jax as ig
from experiments.benchmark.measure import SECONDS, Result, seconds
from igpt_jax.config import ModelConfig, OptimizerConfig, RunConfig
from igpt_jax.generate.sample import image_keys, sample
from igpt_jax.parallel.mesh import make_mesh, put_batch
from igpt_jax.report.curves import plot_growth
from igpt_jax.train.optimizer import adam
from igpt_jax.train.state import compile_run, init_state

PICTURE = pathlib.Path(__file__).parents[1] / "results" / "growth.png"
RESOLUTIONS, DEPTHS = (16, 24, 32, 48, 64), (4, 8, 16, 32, 48)
BASE = ModelConfig(layers=4, width=128, heads=4, resolution=16, vocabulary=64)


def growth() -> list[Result]:
    """Width 128, one image: contexts of 256 to 4,096 at 4 layers, and 4 to 48 layers at 256 positions."""
    contexts = {r * r: _train(dataclasses.replace(BASE, resolution=r)) for r in RESOLUTIONS}
    depths = {layers: _train(dataclasses.replace(BASE, layers=layers)) for layers in DEPTHS}
    lengths = {r * r: _sample(dataclasses.replace(BASE, resolution=r)) for r in RESOLUTIONS[:-1]}
    steps = {n: step for n, (_, step) in contexts.items()}
    compiles = {n: compile_seconds for n, (compile_seconds, _) in depths.items()}
    deep_steps = {n: step for n, (_, step) in depths.items()}
    curves = {
        ("positions", "seconds a training step"): steps,
        ("layers", "seconds a training step"): deep_steps,
        ("layers", "seconds to compile"): compiles,
        ("positions", "seconds to draw an image"): lengths,
    }
    plot_growth(PICTURE, curves)
    return [
        Result(f"growth: {what} at {n} {axis}", SECONDS, value)
        for (axis, what), curve in curves.items()
        for n, value in curve.items()
    ]


def _train(config):
    """Seconds to compile, and of a step."""
    run = RunConfig(model=config, optimizer=OptimizerConfig())
    optimizer, mesh = adam(run.optimizer, lambda _: 1e-3), make_mesh(run.parallel, jax.devices()[:1])
    state = init_state(ig.ImageGPT(config), optimizer, 0, mesh)
    batch = put_batch({"tokens": np.zeros((1, config.context), np.int32)}, mesh)
    start = time.perf_counter()
    step, _ = compile_run(run, optimizer, mesh, state, batch, None)
    compile_seconds, found = time.perf_counter() - start, []
    for _ in range(4):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        found.append(time.perf_counter() - start)
    return compile_seconds, statistics.median(found[1:])


def _sample(config):
    """Seconds for one image."""
    model, mesh = ig.ImageGPT(config), make_mesh(RunConfig().parallel, jax.devices()[:1])
    params = init_state(model, adam(OptimizerConfig(), lambda _: 1e-3), 0, mesh).params

    def draw():
        sample(model, params, image_keys(0, 1), np.zeros((1, 0), np.int32)).block_until_ready()

    draw()
    return min(seconds(draw) for _ in range(2))
