"""Measures how the times of training, compilation and sampling grow with context and depth, and plots them."""

import dataclasses
import pathlib
import statistics

import numpy as np

from experiments.benchmark.measure import SECONDS, Result, seconds
from experiments.benchmark.ours import drawing, training_step
from igpt_jax.config import ModelConfig
from igpt_jax.report.curves import plot_growth

RESOLUTIONS, DEPTHS = (16, 24, 32, 48, 64), (4, 8, 16, 32, 48)
BASE = ModelConfig(layers=4, width=128, heads=4, resolution=16, vocabulary=64)


def growth(picture: pathlib.Path | None) -> list[Result]:
    """Times a network of width 128 on one image: 256 to 4,096 positions, and 4 to 48 layers at 256 positions.

    Args:
      picture: the file of the plot, or None for no plot.
    """
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
        ("positions", "seconds to sample an image"): lengths,
    }
    if picture:
        plot_growth(picture, "A network of width 128, one image", curves)
    return [
        Result(f"growth: {what} at {n} {axis}", SECONDS, value)
        for (axis, what), curve in curves.items()
        for n, value in curve.items()
    ]


def _train(config: ModelConfig) -> tuple[float, float]:
    """Returns the seconds of compilation and of a training step."""
    step, compile_seconds = training_step(config, np.zeros((1, config.context), np.int32))
    return compile_seconds, statistics.median([seconds(step) for _ in range(4)][1:])


def _sample(config: ModelConfig) -> float:
    """Returns the seconds that one image takes."""
    draw = drawing(config, images=1)
    draw()
    return min(seconds(draw) for _ in range(2))
