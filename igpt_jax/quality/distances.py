"""Distances between two sets of images, from their features: Fréchet and kernel distance, precision and recall."""

from collections.abc import Callable, Iterator

import numpy as np
import scipy.linalg

from igpt_jax.errors import InputError

_CHUNK = 1024  # rows whose distances to all others are held at once


def frechet(mean_d: np.ndarray, covariance_dd: np.ndarray, mean2_d: np.ndarray, covariance2_dd: np.ndarray) -> float:
    """The squared Fréchet distance of two normal distributions, ‖m1 - m2‖² + tr(C1 + C2 - 2 (C1 C2)^½), in float64.

    The trace of (C1 C2)^½ is computed as that of the symmetric (C1^½ C2 C1^½)^½, whose eigenvalues are real and not
    negative. So there is no imaginary part to discard, even with fewer images than features.

    Args:
      mean_d: of the first distribution, (d,) float64.
      covariance_dd: of the first distribution, (d, d) float64.
      mean2_d: of the second distribution.
      covariance2_dd: of the second distribution.

    Reference:
      Heusel et al. 2017, arXiv:1706.08500, equation 6.
    """
    values_d, vectors_dd = scipy.linalg.eigh(covariance_dd)
    root_dd = (vectors_dd * np.sqrt(values_d.clip(min=0))) @ vectors_dd.T
    squares_d = scipy.linalg.eigvalsh(root_dd @ covariance2_dd @ root_dd)
    trace = np.trace(covariance_dd) + np.trace(covariance2_dd) - 2 * np.sqrt(squares_d.clip(min=0)).sum()
    return float(((mean_d - mean2_d) ** 2).sum() + trace)


def frechet_at_infinity(
    features_bd: np.ndarray, distance_of: Callable[[np.ndarray], float], seed: int, sizes: int = 15
) -> tuple[float, list[tuple[int, float]]]:
    """Extrapolates a Fréchet distance to infinitely many images.

    The distance of N images has a bias of about a constant over N. So it is measured for random subsets of several
    sizes, and a straight line fitted in 1/N gives its value at 1/N = 0.

    Args:
      features_bd: of the samples, (b, d).
      distance_of: computes the distance from a subset of these features.
      seed: of the random subsets.
      sizes: how many sizes to measure, evenly spaced from a tenth of the images to all of them.

    Returns:
      The distance at infinity, and the measured pairs (N, distance).

    Raises:
      InputError: there are fewer images than sizes.

    Reference:
      Chong and Forsyth 2019, arXiv:1911.07023.
    """
    rng, images = np.random.default_rng(seed), len(features_bd)
    if images < sizes:
        raise InputError(f"--infinity extrapolates from {sizes} or more images, but a set has {images}; give more")
    counts = np.unique(np.linspace(max(2, images // 10), images, sizes).astype(int))
    measured = [(int(n), distance_of(features_bd[rng.choice(images, n, replace=False)])) for n in counts]
    _, at_infinity = np.polyfit([1 / n for n, _ in measured], [distance for _, distance in measured], 1)
    return float(at_infinity), measured


def kernel_distance(
    features_bd: np.ndarray, reference_bd: np.ndarray, *, seed: int, subsets: int = 100, size: int = 1000
) -> tuple[float, float]:
    """The kernel distance (KID): the unbiased squared maximum mean discrepancy with the kernel (x·y / d + 1)³.

    Args:
      features_bd: of the samples, (b, d).
      reference_bd: of the reference, (n, d).
      seed: of the random subsets.
      subsets: how many pairs of subsets to compare.
      size: images in each subset.

    Returns:
      The mean over the subsets, and the standard deviation over them.

    Raises:
      InputError: a set has fewer than `size` images, or fewer than two.

    Reference:
      Bińkowski et al. 2018, arXiv:1801.01401.
    """
    smallest = min(len(features_bd), len(reference_bd))
    if smallest < 2:
        raise InputError(f"KID compares pairs of images, but a set has {smallest}; give more images")
    if smallest < size:
        raise InputError(f"KID takes subsets of {size} images, but a set has {smallest}; lower --kid_subset to that")
    rng = np.random.default_rng(seed)
    estimates = []
    for _ in range(subsets):
        x_nd = features_bd[rng.choice(len(features_bd), size, replace=False)].astype(np.float64)
        y_nd = reference_bd[rng.choice(len(reference_bd), size, replace=False)].astype(np.float64)
        estimates.append(unbiased_mmd(x_nd, y_nd))
    return float(np.mean(estimates)), float(np.std(estimates))


def unbiased_mmd(x_nd: np.ndarray, y_nd: np.ndarray) -> float:
    """The mean kernel over pairs within each set, minus twice the mean over pairs between the sets.

    An image is never paired with itself, which makes the estimate unbiased.

    Args:
      x_nd: features of one set, (n, d) float64.
      y_nd: features of the other set.
    """

    def kernel(a_nd: np.ndarray, b_nd: np.ndarray) -> np.ndarray:
        return (a_nd @ b_nd.T / a_nd.shape[1] + 1) ** 3

    def within(a_nd: np.ndarray) -> float:
        k_nn, n = kernel(a_nd, a_nd), len(a_nd)
        return (k_nn.sum() - np.trace(k_nn)) / (n * (n - 1))

    return float(within(x_nd) + within(y_nd) - 2 * kernel(x_nd, y_nd).mean())


def precision_recall_density_coverage(
    features_bd: np.ndarray, reference_bd: np.ndarray, k: int = 5
) -> dict[str, float]:
    """Measures how faithful and how varied samples are, with a ball around each image up to its k-th neighbor.

    Args:
      features_bd: of the samples, (b, d).
      reference_bd: of the reference, (n, d).
      k: which neighbor, within the same set, sets the radius of a ball; 1 is the nearest.

    Returns:
      "precision": the fraction of the samples that lie in a ball of the reference.
      "recall": the fraction of the reference images that lie in a ball of the samples.
      "density": the mean number of the reference's balls that a sample lies in, divided by k.
      "coverage": the fraction of the reference's balls that contain a sample.

    Raises:
      InputError: k is below 1, or a set has no k-th neighbor.

    Reference:
      Precision and recall: Kynkäänniemi et al. 2019, arXiv:1904.06991. Density and coverage: Naeem et al. 2020,
      arXiv:2002.09797.
    """
    smallest = min(len(features_bd), len(reference_bd))
    if not 1 <= k < smallest:
        raise InputError(f"the {k}-th neighbor does not exist in a set of {smallest} images; set --neighbors lower")
    own_radius_b, reference_radius_b = _radii(features_bd, k), _radii(reference_bd, k)
    within_b = np.zeros(len(features_bd), int)  # how many of the reference's balls each sample lies in
    recalled_b, covered_b = np.zeros((2, len(reference_bd)), bool)
    for rows, squares in _squared_distances(reference_bd, features_bd):
        in_ball = squares < reference_radius_b[rows, None]
        within_b += in_ball.sum(axis=0)
        covered_b[rows] = in_ball.any(axis=1)
        recalled_b[rows] = (squares < own_radius_b[None]).any(axis=1)
    return {
        "precision": float((within_b > 0).mean()),
        "recall": float(recalled_b.mean()),
        "density": float(within_b.mean() / k),
        "coverage": float(covered_b.mean()),
    }


def _radii(features_bd: np.ndarray, k: int) -> np.ndarray:
    """The squared distance to the k-th nearest other image, (b,)."""
    # Index 0 of the partition is the image itself, at distance 0.
    return np.concatenate(
        [np.partition(squares, k, axis=1)[:, k] for _, squares in _squared_distances(features_bd, features_bd)]
    )


def _squared_distances(a_bd: np.ndarray, b_bd: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields slices of the first set, and their squared distances to the whole second set, in float64."""
    a_bd, b_bd = a_bd.astype(np.float64), b_bd.astype(np.float64)
    b_squares = (b_bd**2).sum(axis=1)
    for start in range(0, len(a_bd), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part_bd = a_bd[rows]
        yield rows, ((part_bd**2).sum(axis=1)[:, None] + b_squares[None] - 2 * part_bd @ b_bd.T).clip(min=0)
