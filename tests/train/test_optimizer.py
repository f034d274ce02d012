"""Adam and its schedule against the paper's words and Adam's equations; Muon against linear algebra."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igpt_jax.config import OptimizerConfig
from igpt_jax.train.optimizer import adam, learning_rate_schedule, muon, orthogonalize


def test_the_rate_rises_for_one_epoch_then_falls_to_zero_along_a_cosine():
    schedule = learning_rate_schedule(OptimizerConfig(learning_rate=0.4), steps=1100, steps_per_epoch=100)
    assert schedule(0) == 0
    assert schedule(50) == pytest.approx(0.2)
    assert schedule(100) == pytest.approx(0.4)
    assert schedule(350) == pytest.approx(0.4 * (1 + np.cos(np.pi / 4)) / 2)
    assert schedule(1100) == pytest.approx(0, abs=1e-8)


def test_without_a_cosine_the_rate_stays_after_the_warm_up():
    options = OptimizerConfig(learning_rate=0.4, schedule="constant")
    schedule = learning_rate_schedule(options, steps=1100, steps_per_epoch=100)
    assert [float(schedule(step)) for step in (0, 50, 100, 1100)] == pytest.approx([0, 0.2, 0.4, 0.4])
    at_once = learning_rate_schedule(dataclasses.replace(options, warmup_epochs=0.0), steps=9, steps_per_epoch=100)
    assert at_once(0) == pytest.approx(0.4)


def test_a_decay_begins_after_the_stable_phase_and_ends_at_zero():
    options = OptimizerConfig(learning_rate=0.4, schedule="wsd", decay_fraction=0.25)
    schedule = learning_rate_schedule(options, steps=1200, steps_per_epoch=100)
    rates = [float(schedule(step)) for step in (0, 50, 100, 900, 1050, 1200)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.4, 0.2, 0])


@pytest.mark.parametrize("kind", ["cosine", "constant", "wsd"])
@pytest.mark.parametrize("steps", [1, 3, 80, 399])
def test_a_warm_up_takes_at_most_a_quarter_of_the_run(kind, steps):
    schedule = learning_rate_schedule(
        OptimizerConfig(learning_rate=0.4, schedule=kind), steps=steps, steps_per_epoch=100
    )
    assert float(schedule(steps // 4)) == pytest.approx(0.4)
    assert all(np.isfinite(schedule(step)) and 0 <= schedule(step) <= 0.4 + 1e-6 for step in range(steps + 1))


def test_updates_follow_adams_equations_with_the_papers_moments():
    options = OptimizerConfig(learning_rate=0.1)
    optimizer = adam(options, lambda step: 0.1)
    parameter, state, m, v = jnp.array([1.0, -2.0]), None, 0.0, 0.0
    state, expected = optimizer.init(parameter), np.array([1.0, -2.0])
    for i in range(1, 5):
        gradient = np.sin(np.array([1.0, 2.0]) * i)
        m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient**2
        expected = expected - 0.1 * (m / (1 - 0.9**i)) / (np.sqrt(v / (1 - 0.95**i)) + 1e-8)
        update, state = optimizer.update(jnp.asarray(gradient), state)
        parameter = parameter + update
    np.testing.assert_allclose(parameter, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 64), (2, 64, 16)])
def test_orthogonalizing_keeps_the_singular_vectors_and_levels_the_singular_values(shape, dtype):
    x_lio = np.random.default_rng(0).normal(size=shape)
    x_lio /= np.linalg.norm(x_lio, axis=(1, 2), keepdims=True)
    levelled_lio = np.asarray(orthogonalize(jnp.asarray(x_lio, dtype)), np.float64)
    for x_io, levelled_io in zip(x_lio, levelled_lio, strict=True):
        u, s, vt = np.linalg.svd(x_io, full_matrices=False)
        inner = u.T @ levelled_io @ vt.T
        np.testing.assert_allclose(inner, np.diag(np.diag(inner)), atol=1e-4 if dtype == "float32" else 0.1)
        assert (np.abs(np.diag(inner)[s > 0.02] - 0.95) < 0.35).all()


def test_muon_moves_each_layers_matrices_by_orthogonalized_nesterov_momentum_and_all_else_by_adam():
    options = OptimizerConfig(
        name="muon", learning_rate=0.01, muon_learning_rate=0.5, muon_momentum=0.8, weight_decay=0.1
    )
    rng = np.random.default_rng(0)
    shapes = {
        "token_embedding": (5, 8),
        "blocks": {
            "attention": {"query": {"kernel": (2, 8, 2, 4), "bias": (2, 2, 4)}, "out": {"kernel": (2, 2, 4, 8)}},
            "mlp": {"up": {"kernel": (2, 8, 32)}, "down": {"kernel": (2, 32, 8)}},
        },
    }
    params, *grads = (
        jax.tree.map(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), shapes, is_leaf=_is_shape)
        for _ in range(4)
    )
    state, moved = muon(options, lambda step: 0.01, "float32").init(params), params
    others, adam_state = adam(options, lambda step: 0.01), adam(options, lambda step: 0.01).init(params)
    by_adam = params
    for gradient in grads:
        updates, state = muon(options, lambda step: 0.01, "float32").update(gradient, state, moved)
        moved = optax.apply_updates(moved, updates)
        updates, adam_state = others.update(gradient, adam_state)
        by_adam = optax.apply_updates(by_adam, updates)
    np.testing.assert_allclose(moved["token_embedding"], by_adam["token_embedding"], rtol=1e-6)
    query = moved["blocks"]["attention"]["query"]
    np.testing.assert_allclose(query["bias"], by_adam["blocks"]["attention"]["query"]["bias"], rtol=1e-6)

    for path, matrix in (
        (("attention", "query"), (8, 8)),
        (("attention", "out"), (8, 8)),
        (("mlp", "up"), (8, 32)),
        (("mlp", "down"), (32, 8)),
    ):

        def kernel(tree, path=path):
            return np.asarray(tree["blocks"][path[0]][path[1]]["kernel"], np.float64)

        for layer in range(2):
            expected, momentum = kernel(params)[layer].reshape(matrix), 0.0
            for gradient in grads:
                g = kernel(gradient)[layer].reshape(matrix)
                momentum = 0.8 * momentum + g
                step = max(1, matrix[1] / matrix[0]) ** 0.5 * newton_schulz(g + 0.8 * momentum)
                expected = expected - 0.5 * (step + 0.1 * expected)
            np.testing.assert_allclose(kernel(moved)[layer].reshape(matrix), expected, atol=1e-4)


def newton_schulz(x):
    """On singular values alone, which the iteration's odd polynomial maps one by one."""
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    s = s / np.sqrt((s**2).sum())
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ np.diag(s) @ vt


def _is_shape(node):
    return isinstance(node, tuple)
