"""Measures how fast images are sampled, and how close that comes to the bound that memory bandwidth sets."""

import dataclasses
import functools
import pathlib
import time
from typing import Any

import jax
import numpy as np

from experiments.accelerator.cases import Case
from experiments.accelerator.data import photographs
from experiments.accelerator.learning import learn
from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from experiments.kernels import busy_shares
from igpt_jax.config import DataConfig, ModelConfig, OptimizerConfig, ParallelConfig, RunConfig
from igpt_jax.generate.sample import image_keys, sample
from igpt_jax.model.flops import chip_of_device
from igpt_jax.model.image_gpt import ImageGPT, count_parameters
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.parallel.plan import sampling_work
from igpt_jax.train.state import abstract_params, init_params
from igpt_jax.types import Params


def cases(sizes: Sizes, _: pathlib.Path) -> dict[str, Case]:
    """The cases by name: whole images from S after a short training on photographs, and from an untrained L.

    How many positions a pass over a window decides depends on what the network has learned.
    """
    return {
        f"draw {name}, batch {images}, window {window}": _case(sizes, name, images, window)
        for name, images, window in sizes.drawn
    }


def _case(sizes: Sizes, name: str, images: int, window: int) -> Case:
    config, mesh = sizes.models[name], make_mesh(ParallelConfig(), jax.devices()[:1])
    model, nothing_bt = ImageGPT(config), np.zeros((images, 0), np.int32)

    def prepare() -> tuple[Any, float]:
        start = time.perf_counter()
        shapes = abstract_params(model, mesh)
        compiled = sample.lower(model, shapes, image_keys(0, images), nothing_bt, window=window).compile()
        return compiled, time.perf_counter() - start

    def run(prepared: tuple[Any, float]) -> dict[str, Any]:
        compiled, compile_seconds = prepared
        params, loss = _learned(config, sizes.learning_steps) if name == "S" else (init_params(model, 0, mesh), None)

        def draw() -> Any:
            return jax.block_until_ready(compiled(params, image_keys(0, images), nothing_bt))

        passes = int(draw().passes.max())
        took = min(seconds(draw) for _ in range(2))
        figures = {
            "tokens/s": images * config.context / took,
            "tokens a pass": config.context / passes,
            "milliseconds a pass": 1000 * took / passes,
        }
        if chip := chip_of_device(jax.devices()):
            work = sampling_work(config, images, count_parameters(config), mesh)
            figures["share of the memory's bound"] = work.hbm_bytes / chip.hbm_bandwidth / took
        kinds, kernels = busy_shares(draw)
        return figures | {"compile seconds": compile_seconds, "loss": loss, "kinds": kinds, "kernels": kernels}

    return Case(run, prepare)


@functools.cache
def _learned(config: ModelConfig, steps: int) -> tuple[Params, float]:
    """Trains on photographs; returns the parameters and the mean loss of the last ten steps, nats per token."""
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    run = RunConfig(
        steps=steps,
        model=dataclasses.replace(config, remat="dots"),
        data=DataConfig(batch_size=64),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    tokens_nt = photographs(4096, config.resolution, seed=0) % config.vocabulary
    learned = learn(run, init_params(ImageGPT(run.model), 0, mesh), tokens_nt, mesh)
    return learned.params, float(learned.losses[-10:].mean())
