"""A short training on tokens in memory."""

import dataclasses
import time

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import RunConfig
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import put_batch
from igpt_jax.train.compile import compile_train_step
from igpt_jax.train.optimizer import adam, learning_rate_schedule
from igpt_jax.train.state import first_state


@dataclasses.dataclass(frozen=True)
class Learned:
    """What a training gave."""

    params: dict
    losses: np.ndarray  # of every step, nats per token
    seconds: float  # of all steps, without the compilation


def learn(run: RunConfig, params: dict, tokens_nt: np.ndarray, mesh: Mesh) -> Learned:
    """Trains `params` for `run.steps` steps on random rows of the tokens; a tenth of the steps warms up."""
    rng, model = np.random.default_rng(run.seed), ImageGPT(run.model)
    run = dataclasses.replace(run, optimizer=dataclasses.replace(run.optimizer, warmup_epochs=1))
    optimizer = adam(
        run.optimizer, learning_rate_schedule(run.optimizer, steps=run.steps, steps_per_epoch=run.steps / 10)
    )
    rows = rng.integers(0, len(tokens_nt), (run.steps, run.data.batch_size))
    state = first_state(model, optimizer, params, mesh)
    step, _ = compile_train_step(run, optimizer, mesh, state, put_batch({"tokens": tokens_nt[rows[0]]}, mesh), None)
    losses, start = [], time.perf_counter()
    for its_rows in rows:
        state, metrics = step(state, put_batch({"tokens": tokens_nt[its_rows]}, mesh))
        losses.append(metrics["nats_per_token"])
    losses = np.array(jax.device_get(losses))
    return Learned(state.params, losses, time.perf_counter() - start)
