"""Measures a training step beside torch: the same weights, images and Adam, in float32."""

import dataclasses
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from experiments.benchmark.measure import Elsewhere, Result, Side, compare
from experiments.benchmark.minimal import MinimalImageGPT, trainer
from experiments.benchmark.ours import LEARNING_RATE, SMALL, S, load, training_step
from experiments.benchmark.peers import image_gpt, save
from igpt_jax.config import ModelConfig

STEPS = 3  # the losses of the first steps must agree
# For each peer, whether it is the minimal model, and whether it is compiled.
PEERS = {
    "a minimal torch model with scaled_dot_product_attention": (True, False),
    "the minimal one under torch.compile": (True, True),
    "transformers under torch.compile": (False, True),
    "transformers, eager": (False, False),
}


def train() -> list[Result]:
    """Trains four layers of width 256 on 1,024 positions, four images a step."""
    return _train("train, L=4 d=256 h=4, 1,024 positions, batch 4", SMALL, images=4, rounds=9)


def train_s() -> list[Result]:
    """Trains iGPT-S, one image a step."""
    return _train("train, iGPT-S, batch 1", S, images=1, rounds=5)


def _train(name: str, config: ModelConfig, images: int, rounds: int) -> list[Result]:
    with tempfile.TemporaryDirectory() as directory:
        save(image_gpt(config), directory)
        ours = Elsewhere(_our_step, config, images, directory)
        peers = {peer: Elsewhere(_peers_step, config, images, *kind) for peer, kind in PEERS.items()}
        expected = [ours() for _ in range(STEPS)]
    for peer, step in peers.items():
        np.testing.assert_allclose([step() for _ in range(STEPS)], expected, rtol=2e-4, err_msg=peer)
    losses = ", ".join(f"{loss:.4f}" for loss in expected)
    remark = f"the first {STEPS} losses are equal to 2e-4: {losses} nats/token"
    sides = {peer: Side(step, images) for peer, step in peers.items()}
    return compare(name, "images/s", Side(ours, images), sides, remark, rounds=rounds)


def _our_step(config: ModelConfig, images: int, directory: str) -> Callable[[], float]:
    params = _without_biases(load(directory))
    step, _ = training_step(dataclasses.replace(config, use_bias=False), _tokens(config, images), params)
    return step


def _without_biases(params: Any) -> Any:
    """Removes the biases, which are zero: transformers' model has them, and the paper's network has none."""
    if not isinstance(params, dict):
        return params
    return {name: _without_biases(leaf) for name, leaf in params.items() if name != "bias"}


def _peers_step(config: ModelConfig, images: int, minimal: bool, compiled: bool) -> Callable[[], float]:
    peer = image_gpt(config)
    weights = {name: weight for name, weight in peer.named_parameters() if not name.endswith("bias")}
    model = MinimalImageGPT(config, weights) if minimal else peer
    tokens_bt = torch.from_numpy(_tokens(config, images)).long()
    return trainer(torch.compile(model) if compiled else model, tokens_bt, config.vocabulary, LEARNING_RATE)


def _tokens(config: ModelConfig, images: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, config.vocabulary, (images, config.context)).astype(np.int32)
