"""Statistics of samples against scipy and scikit-learn, and on images of which the answer is known."""

import numpy as np
import pytest
import scipy.spatial
from sklearn.linear_model import LogisticRegression

from igpt_jax.generate.quality import divergences, jensen_shannon, nearest, predict_labels

RNG = np.random.default_rng(0)


def test_the_nearest_image_and_its_distance_are_those_of_all_pairs():
    images, train = (RNG.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8) for n in (70, 90))
    images[3] = train[17]
    distances_b, indices_b = nearest(images, train)
    pairs = scipy.spatial.distance.cdist(images.reshape(70, -1).astype(float), train.reshape(90, -1).astype(float))
    np.testing.assert_array_equal(indices_b, pairs.argmin(axis=1))
    np.testing.assert_allclose(distances_b, pairs.min(axis=1) / np.sqrt(48))
    assert (distances_b[3], indices_b[3]) == (0, 17)


def test_the_divergence_is_scipys_and_reaches_its_bounds():
    p, q = RNG.dirichlet(np.ones(9), 2)
    assert jensen_shannon(p, q) == pytest.approx(scipy.spatial.distance.jensenshannon(p, q) ** 2)
    assert jensen_shannon(p, p) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon(np.array([1, 0]), np.array([0, 1])) == pytest.approx(np.log(2))


def test_shuffling_pixels_leaves_the_tokens_and_changes_the_pairs():
    stripes_bt = np.tile(np.arange(16) % 4, (8, 1))  # every row is 0 1 2 3
    columns_bt = stripes_bt.reshape(8, 4, 4).swapaxes(1, 2).reshape(8, 16)
    found = divergences(columns_bt, stripes_bt, vocabulary=4)
    assert found["tokens"] == pytest.approx(0, abs=1e-12)
    assert found["row_pairs"] == pytest.approx(np.log(2))  # 0 1, 1 2, 2 3 against 0 0, 1 1, ...
    assert found["column_pairs"] == pytest.approx(np.log(2))


def test_labels_are_those_of_scikit_learns_regression():
    train_bd, test_bd = RNG.normal(2, 3, (200, 6)).astype(np.float32), RNG.normal(2, 3, (100, 6)).astype(np.float32)
    labels_b = (train_bd[:, :3] + RNG.normal(0, 1, (200, 3))).argmax(axis=1).astype(np.int32)
    found_b = predict_labels(train_bd, labels_b, test_bd, classes=3, l2=1e-2)
    mean_d, std_d = train_bd.mean(0), train_bd.std(0)
    theirs = LogisticRegression(C=1 / (200 * 1e-2), tol=1e-8, max_iter=10_000).fit(
        (train_bd - mean_d) / std_d, labels_b
    )
    assert (found_b == theirs.predict((test_bd - mean_d) / std_d)).mean() > 0.98
