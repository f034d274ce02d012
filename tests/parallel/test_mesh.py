"""One device equals many, and meshes that cannot be are refused."""

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import OptimizerConfig, ParallelConfig
from igpt_jax.objectives import autoregressive
from igpt_jax.parallel.mesh import check_batch, check_model, make_mesh, put_batch
from igpt_jax.train.optimizer import adam, learning_rate_schedule
from igpt_jax.train.state import compile_step, init_state

CONFIG = ig.ModelConfig(layers=2, width=32, heads=4, resolution=4, vocabulary=8)


def train(parallel, devices, steps=4):
    model, mesh, options = ig.ImageGPT(CONFIG), make_mesh(parallel, devices), OptimizerConfig(learning_rate=1e-2)
    optimizer = adam(options, learning_rate_schedule(options, steps=steps, steps_per_epoch=1))
    state = init_state(model, optimizer, 0, mesh)
    step = compile_step(model, optimizer, autoregressive, 0, mesh)
    rng, losses = np.random.default_rng(0), []
    for _ in range(steps):
        batch = {"tokens": rng.integers(0, CONFIG.vocabulary, (16, CONFIG.context)).astype(np.int32)}
        state, metrics = step(state, put_batch(batch, mesh))
        losses.append(float(metrics["nats_per_token"]))
    return losses, state


@pytest.mark.parametrize(("data", "model"), [(8, 1), (2, 4)])
def test_a_mesh_trains_as_one_device_does(data, model):
    losses, state = train(ParallelConfig(), jax.devices()[:1])
    mesh_losses, mesh_state = train(ParallelConfig(data, model), jax.devices())
    np.testing.assert_allclose(losses, mesh_losses, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), state.params, mesh_state.params)
    up = mesh_state.params["blocks"]["mlp"]["up"]["kernel"]
    assert up.addressable_shards[0].data.shape == (2, 32 // data, 128 // model)
    moment = mesh_state.opt_state[0].mu["blocks"]["attention"]["query"]["kernel"]
    assert moment.addressable_shards[0].data.shape == (2, 32 // data, 4 // model, 8)


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        (ParallelConfig(3, 2), "parallel.data=3 x parallel.model=2 does not match 8 devices"),
        (ParallelConfig(-1, 3), "does not match 8 devices"),
    ],
)
def test_a_mesh_that_does_not_match_the_devices_is_refused(parallel, message):
    with pytest.raises(ig.InputError, match=message):
        make_mesh(parallel)


def test_a_batch_that_does_not_split_is_refused_with_the_nearest_that_does():
    with pytest.raises(ig.InputError, match=r"data.batch_size=20 is not divisible by the 8 devices .* set it to 16|24"):
        check_batch("data.batch_size", 20, make_mesh(ParallelConfig()))


def test_a_model_that_does_not_split_is_refused_with_a_mesh_that_fits():
    with pytest.raises(ig.InputError, match=r"model.width=36 is not divisible by the 8 devices .* set parallel.data=6"):
        check_model(ig.ModelConfig(width=36, heads=4), make_mesh(ParallelConfig()))
    with pytest.raises(ig.InputError, match=r"model.heads=6 is not divisible by the 4 devices .* set parallel.model=3"):
        check_model(ig.ModelConfig(width=48, heads=6), make_mesh(ParallelConfig(2, 4)))
