"""A training step beside torch: the same weights, the same images, the same Adam, float32."""

import dataclasses
import tempfile

import jax
import numpy as np
import torch

import igpt_jax as ig
from experiments.benchmark.measure import Result, Side, compare
from experiments.benchmark.peers import MinimalImageGPT, image_gpt, save, trainer
from igpt_jax.config import SIZES, ModelConfig, OptimizerConfig, ParallelConfig, RunConfig
from igpt_jax.parallel.mesh import make_mesh, put_batch
from igpt_jax.train.optimizer import adam
from igpt_jax.train.state import compile_run, first_state

SMALL = ModelConfig(layers=4, width=256, heads=4, unroll=4)
LEARNING_RATE = 1e-4
STEPS = 3  # whose losses must agree


def train() -> list[Result]:
    """Four layers of width 256, 1,024 positions, four images a step."""
    return _train("train, L=4 d=256 h=4, 1,024 positions, batch 4", SMALL, images=4, rounds=7)


def train_s() -> list[Result]:
    """iGPT-S, one image a step."""
    return _train("train, iGPT-S, batch 1", SIZES["s"], images=1, rounds=3)


def _train(name, config, images, rounds):
    tokens_bt = np.random.default_rng(0).integers(0, config.vocabulary, (images, config.context)).astype(np.int32)
    peer, mesh = image_gpt(config), make_mesh(ParallelConfig(), jax.devices()[:1])
    with tempfile.TemporaryDirectory() as directory:
        save(peer, directory)
        _, params, _ = ig.load(directory, mesh=mesh)
    ours = _trainer(dataclasses.replace(config, use_bias=False), _without_biases(params), tokens_bt, mesh)
    theirs = torch.from_numpy(tokens_bt).long()
    peers = {
        "a minimal torch model with scaled_dot_product_attention": trainer(
            MinimalImageGPT(config, peer), theirs, LEARNING_RATE
        ),
        "the minimal one under torch.compile": trainer(_compiled(MinimalImageGPT(config, peer)), theirs, LEARNING_RATE),
        "transformers under torch.compile": trainer(_compiled(_copy(config, peer)), theirs, LEARNING_RATE),
        "transformers, eager": trainer(peer, theirs, LEARNING_RATE),
    }
    expected = [ours() for _ in range(STEPS)]
    for peer_name, step in peers.items():
        found = [step() for _ in range(STEPS)]
        np.testing.assert_allclose(found, expected, rtol=2e-4, err_msg=peer_name)
    losses = ", ".join(f"{loss:.4f}" for loss in expected)
    remark = f"the first {STEPS} losses are equal to 2e-4: {losses} nats/token"
    sides = {peer_name: Side(step, images) for peer_name, step in peers.items()}
    return compare(name, "images/s", Side(ours, images), sides, remark, rounds=rounds)


def _trainer(config, params, tokens_bt, mesh):
    """Our side of `peers.trainer`."""
    run = RunConfig(model=config, optimizer=OptimizerConfig(learning_rate=LEARNING_RATE))
    optimizer = adam(run.optimizer, lambda _: LEARNING_RATE)
    state = first_state(ig.ImageGPT(config), optimizer, params, mesh)
    batch = put_batch({"tokens": tokens_bt}, mesh)
    step_function, _ = compile_run(run, optimizer, mesh, state, batch, None)

    def step() -> float:
        nonlocal state
        state, metrics = step_function(state, batch)
        jax.block_until_ready(state)
        return float(metrics["nats_per_token"])

    return step


def _without_biases(params):
    """transformers' model has biases, here zero for good; the network of the paper has none."""
    if not isinstance(params, dict):
        return params
    return {name: _without_biases(leaf) for name, leaf in params.items() if name != "bias"}


def _copy(config, peer):
    copy = image_gpt(config)
    copy.load_state_dict(peer.state_dict())
    return copy


def _compiled(model):
    compiled = torch.compile(model)
    compiled.config = model.config
    return compiled
