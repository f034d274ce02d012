"""The distances beside their definitions, with scipy, and on sets whose distance is known."""

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.distance import cdist

from igpt_jax.errors import InputError
from igpt_jax.quality.distances import (
    frechet,
    frechet_at_infinity,
    kernel_distance,
    precision_recall_density_coverage,
    unbiased_mmd,
)
from igpt_jax.quality.statistics import Statistics

RNG = np.random.default_rng(0)


def correlated(images, features, shift=0.0):
    return RNG.normal(size=(images, features)) @ RNG.normal(size=(features, features)) + shift


def statistics(features_bd):
    return features_bd.mean(axis=0), np.cov(features_bd, rowvar=False)


@pytest.mark.parametrize("images", [400, 20])  # more than features, and fewer: a singular covariance
def test_frechet_equals_the_definition_with_scipys_matrix_root(images):
    (m1, c1), (m2, c2) = statistics(correlated(images, 40)), statistics(correlated(images, 40, shift=0.3))
    root = scipy.linalg.sqrtm(c1 @ c2)
    expected = ((m1 - m2) ** 2).sum() + np.trace(c1 + c2 - 2 * root).real
    np.testing.assert_allclose(frechet(m1, c1, m2, c2), expected, rtol=1e-6 if images > 40 else 1e-3)


def test_frechet_is_zero_for_equal_sets_and_known_for_scaled_normals():
    mean, covariance = statistics(correlated(200, 30))
    assert abs(frechet(mean, covariance, mean, covariance)) < 1e-9 * np.trace(covariance)
    np.testing.assert_allclose(frechet(mean, covariance, mean + 2, 9 * covariance), 120 + 4 * np.trace(covariance))


def test_the_extrapolation_takes_the_bias_of_few_images_away():
    reference = statistics(RNG.normal(size=(100_000, 16)))
    samples = RNG.normal(size=(1000, 16))

    def distance(features_bd):
        return frechet(*statistics(features_bd), *reference)

    at_infinity, measured = frechet_at_infinity(samples, distance, seed=0)
    assert [n for n, _ in measured] == sorted(n for n, _ in measured)
    assert abs(at_infinity) < distance(samples) / 2


def test_the_kernel_distance_is_unbiased_and_equals_its_double_sum():
    x, y = RNG.normal(size=(6, 3)), RNG.normal(size=(5, 3))

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within_x = np.mean([kernel(x[i], x[j]) for i in range(6) for j in range(6) if i != j])
    within_y = np.mean([kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    between = np.mean([kernel(a, b) for a in x for b in y])
    np.testing.assert_allclose(unbiased_mmd(x, y), within_x + within_y - 2 * between)
    same = RNG.normal(size=(2, 2000, 8))
    mean, deviation = kernel_distance(*same, seed=0, subsets=20, size=500)
    assert abs(mean) < 3 * deviation
    apart, _ = kernel_distance(same[0], same[1] + 1, seed=0, subsets=20, size=500)
    assert apart > 20 * deviation


def test_precision_recall_density_and_coverage_equal_their_definitions():
    fake, real = RNG.normal(size=(70, 4)), RNG.normal(size=(50, 4)) * 1.5 + 0.5
    k = 3
    real_radius = np.sort(cdist(real, real), axis=1)[:, k]
    fake_radius = np.sort(cdist(fake, fake), axis=1)[:, k]
    between = cdist(real, fake)
    found = precision_recall_density_coverage(fake, real, k)
    np.testing.assert_allclose(found["precision"], (between < real_radius[:, None]).any(axis=0).mean())
    np.testing.assert_allclose(found["recall"], (between < fake_radius[None]).any(axis=1).mean())
    np.testing.assert_allclose(found["density"], (between < real_radius[:, None]).sum(axis=0).mean() / k)
    np.testing.assert_allclose(found["coverage"], (between.min(axis=1) < real_radius).mean())


def test_too_few_images_are_refused_with_the_option_that_helps():
    few = RNG.normal(size=(4, 3))
    with pytest.raises(InputError, match="KID takes subsets of 1000 images, but a set has 4; lower --kid_subset"):
        kernel_distance(few, few, seed=0)
    with pytest.raises(InputError, match="the 5-th neighbor does not exist in a set of 4 images; set --neighbors"):
        precision_recall_density_coverage(few, few)
    with pytest.raises(InputError, match="1 image has no covariance"):
        Statistics.of(few[:1], "")


def test_statistics_come_back_from_their_file_and_from_pytorch_fids(tmp_path):
    features_bd = correlated(50, 6).astype(np.float32)
    made = Statistics.of(features_bd, "a network")
    np.testing.assert_allclose(made.covariance_dd, np.cov(features_bd.astype(np.float64).T))
    made.save(tmp_path / "own.npz")
    found = Statistics.load(tmp_path / "own.npz")
    np.testing.assert_array_equal(found.covariance_dd, made.covariance_dd)
    assert (found.images, found.network) == (50, "a network")

    np.savez(tmp_path / "theirs.npz", mu=made.mean_d, sigma=made.covariance_dd)
    assert Statistics.load(tmp_path / "theirs.npz").images == 0
    np.savez(tmp_path / "none.npz", arr_0=features_bd)
    with pytest.raises(InputError, match=r"none\.npz holds no statistics, mu and sigma"):
        Statistics.load(tmp_path / "none.npz")
