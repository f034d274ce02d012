"""Adam and its schedule against the paper's words and Adam's equations."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from igpt_jax.config import OptimizerConfig
from igpt_jax.errors import InputError
from igpt_jax.train.optimizer import adam, learning_rate_schedule


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


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(InputError, match="warm-up of 1 epochs is 100 steps, but the run has 80"):
        learning_rate_schedule(OptimizerConfig(), steps=80, steps_per_epoch=100)


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
