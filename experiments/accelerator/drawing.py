"""How fast images are drawn, and what share that is of what the memory's bandwidth allows."""

import functools
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from igpt_jax.config import ModelConfig, ParallelConfig
from igpt_jax.generate.sample import image_keys, sample
from igpt_jax.model.flops import CHIPS
from igpt_jax.model.image_gpt import ImageGPT, count_parameters
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.parallel.plan import sampling_work
from igpt_jax.train.state import init_params


def cases(sizes: Sizes, _: pathlib.Path) -> dict[str, Callable[[], dict]]:
    """Name -> what draws so many whole images at once."""
    return {
        f"draw {name}, batch {images}": functools.partial(_draw, sizes.models[name], images, sizes.repeats)
        for images in sizes.drawn
        for name in ("S", "L")
    }


def _draw(config: ModelConfig, images: int, repeats: int) -> dict:
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    model = ImageGPT(config)
    params, nothing_bt, rngs_b = init_params(model, 0, mesh), np.zeros((images, 0), np.int32), image_keys(0, images)
    start = time.perf_counter()
    compiled = sample.lower(model, params, rngs_b, nothing_bt).compile()
    compile_seconds = time.perf_counter() - start

    def draw():
        compiled(params, rngs_b, nothing_bt).block_until_ready()

    draw()
    took = min(seconds(draw) for _ in range(min(repeats, 2)))
    figures = {"tokens/s": images * config.context / took, "milliseconds a position": 1000 * took / config.context}
    if chip := CHIPS.get(jax.devices()[0].device_kind):
        work = sampling_work(config, images, count_parameters(config), mesh)
        figures["share of the memory's bound"] = work.hbm_bytes / chip.hbm_bandwidth / took
    return figures | {"compile seconds": compile_seconds}
