"""Trains for a few steps on tokens in memory."""

import dataclasses
import time

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import put_batch
from igpt_jax.train.compile import compile_train_step
from igpt_jax.train.optimizer import optimizer_and_schedule
from igpt_jax.train.state import first_state
from igpt_jax.types import Params


@dataclasses.dataclass(frozen=True)
class Learned:
    """The result of a training."""

    params: Params
    losses: np.ndarray  # (steps,), nats per token
    seconds: float  # of all steps, without compilation
    compile_seconds: float


def learn(run: RunConfig, params: Params, tokens_nt: np.ndarray, mesh: Mesh) -> Learned:
    """Trains on random rows of the tokens; a tenth of the steps is warm-up.

    Args:
      run: model, optimizer, batch size, steps and seed.
      params: to start from; their buffers are donated.
      tokens_nt: (n, t) int32 in [0, v).
      mesh: devices.
    """
    rng, model = np.random.default_rng(run.seed), ImageGPT(run.model)
    run = dataclasses.replace(run, optimizer=dataclasses.replace(run.optimizer, warmup_epochs=run.steps / 10))
    optimizer, _ = optimizer_and_schedule(run, images_per_epoch=run.data.batch_size)  # an epoch is one step
    rows = rng.integers(0, len(tokens_nt), (run.steps, run.data.batch_size))
    state, start = first_state(model, optimizer, params, mesh), time.perf_counter()
    step, _ = compile_train_step(run, optimizer, mesh, state, put_batch({"tokens": tokens_nt[rows[0]]}, mesh), None)
    compile_seconds = time.perf_counter() - start
    losses, start = [], time.perf_counter()
    for its_rows in rows:
        state, metrics = step(state, put_batch({"tokens": tokens_nt[its_rows]}, mesh))
        losses.append(metrics["nats_per_token"])
    losses = np.array(jax.device_get(losses))
    return Learned(state.params, losses, time.perf_counter() - start, compile_seconds)
