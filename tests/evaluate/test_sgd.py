"""SGD against a plain loop in numpy, and its batches against what they promise."""

import numpy as np
import pytest
from scipy.special import softmax

from igpt_jax.config import ProbeConfig
from igpt_jax.evaluate import sgd
from igpt_jax.evaluate.features import Rows
from igpt_jax.evaluate.sgd import batch_places, descend

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(1, 2, (3, 50, 6)).astype(np.float32)
LABELS = RNG.integers(0, 4, 50).astype(np.int32)
ROWS = Rows(FEATURES, LABELS, np.flatnonzero(RNG.random(50) < 0.8))
CONFIG = ProbeConfig(solver="sgd", steps=23, batch_size=16, weight_decay=0.01)


def plain_loop(features_bd, labels_b, rate, config, seed):
    """Momentum SGD as the textbooks write it, float64."""
    features_bd = np.concatenate([features_bd, np.ones((len(features_bd), 1))], axis=1).astype(np.float64)
    weights_dc = np.zeros((features_bd.shape[1], 4))
    velocity_dc, decay_d1 = np.zeros_like(weights_dc), np.full((features_bd.shape[1], 1), config.weight_decay)
    decay_d1[-1] = 0
    for step in range(config.steps):
        batch = batch_places(len(features_bd), config.batch_size, seed, step)
        residual_bc = softmax(features_bd[batch] @ weights_dc, axis=1) - np.eye(4)[labels_b[batch]]
        gradient_dc = features_bd[batch].T @ residual_bc / config.batch_size + decay_d1 * weights_dc
        velocity_dc = 0.9 * velocity_dc + gradient_dc
        weights_dc -= rate * (1 + np.cos(np.pi * step / config.steps)) / 2 * velocity_dc
    return weights_dc


@pytest.mark.parametrize("chunk_steps", [1, 7, 100])
def test_all_probes_and_rates_at_once_equal_plain_loops(chunk_steps, monkeypatch):
    groups, rates_gr = [(0, 2), (1, 0)], np.array([[0.3, 0.01], [3.0, 0.1]], np.float32)
    mean_gd, scale_gd = map(np.stack, zip(*map(ROWS.standardization, groups), strict=True))
    monkeypatch.setattr(sgd, "_CHUNK_BYTES", chunk_steps * FEATURES.itemsize * 2 * 12 * CONFIG.batch_size)
    weights_grdc, biases_grc = descend(ROWS, groups, mean_gd, scale_gd, rates_gr, 4, CONFIG, seed=3)
    assert (weights_grdc.shape, biases_grc.shape) == ((2, 2, 12, 4), (2, 2, 4))
    for g, layers in enumerate(groups):
        features_bd = (np.concatenate(FEATURES[list(layers)], axis=1)[ROWS.rows] - mean_gd[g]) * scale_gd[g]
        for r, rate in enumerate(rates_gr[g]):
            expected_dc = plain_loop(features_bd, ROWS.labels, rate, CONFIG, seed=3)
            np.testing.assert_allclose(weights_grdc[g, r], expected_dc[:-1], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(biases_grc[g, r], expected_dc[-1], rtol=1e-3, atol=1e-4)


def test_batches_are_functions_of_seed_and_step_and_epochs_take_every_row_once():
    stream = np.concatenate([batch_places(10, 4, 1, step) for step in range(10)])
    for epoch in stream.reshape(4, 10):
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in stream.reshape(4, 10)}) == 4
    np.testing.assert_array_equal(batch_places(10, 4, 1, 7), stream[28:32])
    assert (batch_places(10, 40, 2, 0) != stream).any()
    assert np.bincount(batch_places(3, 9, 0, 5)).tolist() == [3, 3, 3]
