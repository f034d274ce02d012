"""Rematerialisation: the same gradients in less memory, and the policy that a memory allows."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import REMAT, ModelConfig
from igpt_jax.model.flops import executed_flops
from igpt_jax.objectives import autoregressive
from igpt_jax.train.compile import compile_to_fit

CONFIG = ModelConfig(layers=5, width=64, heads=2, resolution=12, vocabulary=16, remat="auto")
TOKENS = np.random.default_rng(0).integers(0, 16, (8, 144)).astype(np.int32)


@pytest.fixture(scope="module")
def gradients():
    """By policy: the compiled gradient."""
    params = nn.unbox(ig.ImageGPT(CONFIG).init(jax.random.key(0), TOKENS)["params"])

    def compile_with(config):
        def loss(params):
            return autoregressive(ig.ImageGPT(config), params, {"tokens": TOKENS}, None)[0]

        return jax.jit(jax.grad(loss)).lower(params).compile()

    return params, {remat: compile_with(dataclasses.replace(CONFIG, remat=remat)) for remat in REMAT}


def test_every_policy_gives_the_same_gradients(gradients):
    params, compiled = gradients
    expected = compiled["none"](params)
    for remat in REMAT[1:]:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), expected, compiled[remat](params))


def test_auto_recomputes_as_little_as_the_memory_allows(gradients):
    _, compiled = gradients
    temporaries = {remat: compiled[remat].memory_analysis().temp_size_in_bytes for remat in REMAT}
    assert sorted(temporaries.values(), reverse=True) == list(temporaries.values())
    assert temporaries["full"] < temporaries["none"] / 2

    def choose(memory):
        return compile_to_fit(lambda config: compiled[config.remat], CONFIG, memory)[1]

    rest = compiled["none"].memory_analysis()
    rest = rest.argument_size_in_bytes + rest.output_size_in_bytes
    assert choose(None) == "none"
    for remat in REMAT:
        assert choose(rest + temporaries[remat]) == remat


@pytest.mark.parametrize("remat", ["none", "full"])
def test_the_count_of_executed_arithmetic_agrees_with_the_compilers(remat):
    config = ModelConfig(
        layers=2, width=128, heads=2, resolution=8, vocabulary=16, objective="bert", attention="plain", remat=remat
    )
    model = ig.ImageGPT(dataclasses.replace(config, unroll=2))
    tokens = np.zeros((4, 64), np.int32)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens))["params"]

    def loss(params):
        return model.apply({"params": params}, tokens).mean()

    counted = jax.jit(jax.grad(loss)).lower(params).compile().cost_analysis()["flops"]
    # Norms, softmax and sums, which the count leaves out, are the rest.
    assert 0.95 < executed_flops(config, 4) / counted <= 1.02
