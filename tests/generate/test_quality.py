"""Statistics of samples against scipy and scikit-learn, and on images of which the answer is known."""

import numpy as np
import pytest
import scipy.spatial

from igpt_jax.generate.quality import divergences, jensen_shannon, nearest

RNG = np.random.default_rng(0)


def test_the_nearest_image_and_its_distance_are_those_of_all_pairs():
    images, train = (RNG.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8) for n in (70, 600))
    images[3] = train[517]
    distances_b, indices_b = nearest(images, train)
    pairs = scipy.spatial.distance.cdist(images.reshape(70, -1).astype(float), train.reshape(600, -1).astype(float))
    np.testing.assert_array_equal(indices_b, pairs.argmin(axis=1))
    np.testing.assert_allclose(distances_b, pairs.min(axis=1) / np.sqrt(48))
    assert (distances_b[3], indices_b[3]) == (0, 517)


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
