"""What is timed of ours: a training step, and the drawing of images; on one device, without a word of torch."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

import igpt_jax as ig
from igpt_jax.config import SIZES, ModelConfig, OptimizerConfig, ParallelConfig, RunConfig
from igpt_jax.generate.sample import image_keys, sample
from igpt_jax.parallel.mesh import make_mesh, put_batch
from igpt_jax.train.compile import compile_train_step
from igpt_jax.train.optimizer import make_optimizer
from igpt_jax.train.state import first_state, init_params

SMALL = ModelConfig(layers=4, width=256, heads=4, unroll=4)
S = dataclasses.replace(SIZES["s"], unroll=24)  # takes twice as long to compile, and is 4 % faster
LEARNING_RATE = 1e-4
ADAM = OptimizerConfig(learning_rate=LEARNING_RATE)


def training_step(
    config: ModelConfig,
    tokens_bt: np.ndarray,
    params: dict | None = None,
    optimizer: OptimizerConfig = ADAM,
) -> tuple[Callable[[], float], float]:
    """A function that takes a step on the tokens at the peak learning rate and returns the loss before it, in nats.

    params: to start from, and given up; drawn where there are none.

    Returns the function, and the seconds that its compilation took.
    """
    run = RunConfig(model=config, optimizer=optimizer)
    model, mesh = ig.ImageGPT(config), _mesh()
    optimizer = make_optimizer(optimizer, lambda _: run.optimizer.learning_rate, config.dtype)
    state = first_state(model, optimizer, init_params(model, 0, mesh) if params is None else params, mesh)
    batch = put_batch({"tokens": tokens_bt}, mesh)
    start = time.perf_counter()
    step_function, _ = compile_train_step(run, optimizer, mesh, state, batch, None)
    compile_seconds = time.perf_counter() - start

    def step() -> float:
        nonlocal state
        state, metrics = jax.block_until_ready(step_function(state, batch))
        return float(metrics["nats_per_token"])

    return step, compile_seconds


def load(directory: str) -> dict:
    """The parameters of a checkpoint, where `training_step` wants them."""
    _, params, _ = ig.load(directory, mesh=_mesh())
    return params


def drawing(config: ModelConfig, images: int) -> Callable[[], object]:
    """A function that draws so many images with a network as it was born."""
    model = ig.ImageGPT(config)
    params, nothing_bt = init_params(model, 0, _mesh()), np.zeros((images, 0), np.int32)
    return lambda: jax.block_until_ready(sample(model, params, image_keys(0, images), nothing_bt))


def _mesh():
    return make_mesh(ParallelConfig(), jax.devices()[:1])
