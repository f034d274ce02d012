"""How training, compilation and sampling grow with context, depth and length: a table and a plot."""

import dataclasses
import pathlib
import statistics

import numpy as np

from experiments.benchmark.measure import SECONDS, Result, seconds
from experiments.benchmark.ours import drawing, training_step
from igpt_jax.config import ModelConfig
from igpt_jax.report.curves import plot_growth

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
    step, compile_seconds = training_step(config, np.zeros((1, config.context), np.int32))
    return compile_seconds, statistics.median([seconds(step) for _ in range(4)][1:])


def _sample(config):
    """Seconds for one image."""
    draw = drawing(config, images=1)
    draw()
    return min(seconds(draw) for _ in range(2))
