"""Our side of the comparisons: a training step and sampling, on one device.  Does not import torch."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

import igpt_jax as ig
from igpt_jax.config import SIZES, ModelConfig, OptimizerConfig, ParallelConfig, RunConfig
from igpt_jax.generate.sample import image_keys, sample
from igpt_jax.parallel.mesh import make_mesh, put_batch
from igpt_jax.train.compile import compile_train_step
from igpt_jax.train.optimizer import make_optimizer
from igpt_jax.train.state import first_state, init_params
from igpt_jax.types import Params

SMALL = ModelConfig(layers=4, width=256, heads=4, unroll=4)
S = dataclasses.replace(SIZES["s"], unroll=24)  # compiles in twice the time of unroll=1, and runs 4 % faster
LEARNING_RATE = 1e-4
ADAM = OptimizerConfig(learning_rate=LEARNING_RATE)


def training_step(
    config: ModelConfig,
    tokens_bt: np.ndarray,
    params: Params | None = None,
    optimizer: OptimizerConfig = ADAM,
) -> tuple[Callable[[], float], float]:
    """Makes a function that takes one training step at the peak learning rate.

    Args:
      config: of the model.
      tokens_bt: the batch of every step, (b, t) int32 in [0, v).
      params: to start from; their buffers are donated.  None initializes them.
      optimizer: Adam or Muon.

    Returns:
      A function that takes a step and returns the loss before it, in nats per token; and the seconds that compilation
      took.
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


def load(directory: str) -> Params:
    """Loads the parameters of a checkpoint onto the device of `training_step`."""
    _, params, _ = ig.load(directory, mesh=_mesh())
    return params


def drawing(config: ModelConfig, images: int) -> Callable[[], object]:
    """Makes a function that samples a batch of images from an untrained network."""
    model = ig.ImageGPT(config)
    params, nothing_bt = init_params(model, 0, _mesh()), np.zeros((images, 0), np.int32)
    return lambda: jax.block_until_ready(sample(model, params, image_keys(0, images), nothing_bt))


def _mesh() -> Mesh:
    return make_mesh(ParallelConfig(), jax.devices()[:1])
