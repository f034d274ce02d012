"""Probes of few labels: their subsets, and scikit-learn's answer on the same ones."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from igpt_jax.errors import InputError
from igpt_jax.evaluate.low_data import draw_subset, low_data

FEATURES, LABELS = load_digits(return_X_y=True)
FEATURES = FEATURES.astype(np.float32)[None]
TRAIN, TEST = (FEATURES[:, :1200], LABELS[:1200]), (FEATURES[:, 1200:], LABELS[1200:])


def test_subsets_have_exactly_n_of_each_class_and_follow_from_seed_and_number():
    subsets = [draw_subset(TRAIN[1], 25, 10, seed=0, subset=i) for i in range(5)]
    for rows in subsets:
        assert len(set(rows)) == 250
        assert np.bincount(TRAIN[1][rows]).tolist() == [25] * 10
    assert len({frozenset(rows) for rows in subsets}) == 5
    np.testing.assert_array_equal(draw_subset(TRAIN[1], 25, 10, seed=0, subset=3), subsets[3])
    assert set(draw_subset(TRAIN[1], 25, 10, seed=1, subset=0)) != set(subsets[0])


def test_accuracies_are_scikit_learns_on_the_same_subsets():
    result = low_data(*TRAIN, *TEST, labels_per_class=4, layers=(0,), penalty=2.0, classes=10, subsets=3, seed=1)
    expected = []
    for subset in range(3):
        rows = draw_subset(TRAIN[1], 4, 10, 1, subset)
        mean_d, std_d = TRAIN[0][0, rows].mean(axis=0), TRAIN[0][0, rows].std(axis=0)
        scale_d = np.where(std_d > 0, 1 / np.where(std_d > 0, std_d, 1), 0)
        reference = LogisticRegression(C=1 / 2.0, tol=1e-8, max_iter=1000)
        reference.fit((TRAIN[0][0, rows] - mean_d) * scale_d, TRAIN[1][rows])
        expected.append(100 * reference.score((TEST[0][0] - mean_d) * scale_d, TEST[1]))
    np.testing.assert_allclose(result.accuracies, expected, atol=0.4)  # two of 597 images
    assert result.accuracy == pytest.approx(np.mean(expected), abs=0.4)
    assert result.std == pytest.approx(np.std(result.accuracies) * np.sqrt(3 / 2))


def test_more_labels_read_more_and_the_layer_is_the_given_one():
    noise = np.random.default_rng(0).normal(size=FEATURES.shape).astype(np.float32)
    train, test = ((np.concatenate([x, noise[:, : x.shape[1]]]), labels) for x, labels in (TRAIN, TEST))
    few, many, blind = (
        low_data(*train, *test, labels_per_class=n, layers=(layer,), penalty=1.0, classes=10)
        for n, layer in ((4, 0), (25, 0), (25, 1))
    )
    assert blind.accuracy < 20 < few.accuracy < many.accuracy


def test_more_images_than_a_class_has_are_refused():
    with pytest.raises(InputError, match=r"labels_per_class=118, but class \d has 117 training images"):
        low_data(*TRAIN, *TEST, labels_per_class=118, layers=(0,), penalty=1.0, classes=10)
