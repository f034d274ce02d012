"""Distances between two sets of images, from their features: Fréchet and kernel distance, precision and recall."""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg

from igpt_jax.errors import InputError

_CHUNK = 1024  # rows whose distances to all others are held at once


def frechet(mean_d: np.ndarray, covariance_dd: np.ndarray, mean2_d: np.ndarray, covariance2_dd: np.ndarray) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½), the squared distance of two normal distributions, in float64.

    (C1 C2)^½ has the trace of the symmetric (C1^½ C2 C1^½)^½, whose eigenvalues are real and not negative.  So there is
    no imaginary part to be thrown away, also where there are fewer images than features (Heusel et al.,
    arXiv:1706.08500, equation 6).
    """
    values_d, vectors_dd = scipy.linalg.eigh(covariance_dd)
    root_dd = (vectors_dd * np.sqrt(values_d.clip(min=0))) @ vectors_dd.T
    squares_d = scipy.linalg.eigvalsh(root_dd @ covariance2_dd @ root_dd)
    trace = np.trace(covariance_dd) + np.trace(covariance2_dd) - 2 * np.sqrt(squares_d.clip(min=0)).sum()
    return float(((mean_d - mean2_d) ** 2).sum() + trace)


def frechet_at_infinity(
    features_bd: np.ndarray, distance_of: Callable[[np.ndarray], float], seed: int, sizes: int = 15
) -> tuple[float, list[tuple[int, float]]]:
    """Extrapolates a Fréchet distance to infinitely many images (Chong and Forsyth, arXiv:1911.07023).

    The distance of N images is biased by about a constant over N.  So it is measured for random subsets of `sizes`
    sizes, from a tenth of the images to all of them, and a straight line in 1/N gives its value at 0.

    Args:
      features_bd: of the samples, (b, d).
      distance_of: from some of these features to their distance.
    Returns:
      The distance at infinity, and the measured (N, distance).
    """
    rng, images = np.random.default_rng(seed), len(features_bd)
    counts = np.unique(np.linspace(max(2, images // 10), images, sizes).astype(int))
    measured = [(int(n), distance_of(features_bd[rng.choice(images, n, replace=False)])) for n in counts]
    _, at_infinity = np.polyfit([1 / n for n, _ in measured], [distance for _, distance in measured], 1)
    return float(at_infinity), measured


def kernel_distance(
    features_bd: np.ndarray, reference_bd: np.ndarray, *, seed: int, subsets: int = 100, size: int = 1000
) -> tuple[float, float]:
    """The squared maximum mean discrepancy with the kernel (x·y / d + 1)³, unbiased (KID; arXiv:1801.01401).

    Returns its mean over random subsets of `size` images of either set, and the standard deviation over these.

    Raises InputError where a set has fewer than `size` images.
    """
    smallest = min(len(features_bd), len(reference_bd))
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
    """The mean kernel of different images of one set, of the other, less twice that between the sets."""

    def kernel(a_nd, b_nd):
        return (a_nd @ b_nd.T / a_nd.shape[1] + 1) ** 3

    def within(a_nd):
        k_nn, n = kernel(a_nd, a_nd), len(a_nd)
        return (k_nn.sum() - np.trace(k_nn)) / (n * (n - 1))

    return float(within(x_nd) + within(y_nd) - 2 * kernel(x_nd, y_nd).mean())


def precision_recall_density_coverage(
    features_bd: np.ndarray, reference_bd: np.ndarray, k: int = 5
) -> dict[str, float]:
    """How faithful and how varied samples are, by balls that reach to each image's k-th neighbor.

    Precision: the part of the samples within some ball of the reference.  Recall: the part of the reference within some
    ball of the samples (Kynkäänniemi et al., arXiv:1904.06991).  Density: the mean number of the reference's balls
    about a sample, over k.  Coverage: the part of the reference's balls that hold a sample (Naeem et al.,
    arXiv:2002.09797).

    Raises InputError where a set has no k-th neighbor.
    """
    smallest = min(len(features_bd), len(reference_bd))
    if not 1 <= k < smallest:
        raise InputError(f"the {k}-th neighbor does not exist in a set of {smallest} images; set --neighbors lower")
    own_radius_b, reference_radius_b = _radii(features_bd, k), _radii(reference_bd, k)
    within_b = np.zeros(len(features_bd), int)  # the reference's balls about each sample
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


def _radii(features_bd, k):
    """The squared distance to the k-th nearest other image, (b,)."""
    return np.concatenate(
        [np.partition(squares, k, axis=1)[:, k] for _, squares in _squared_distances(features_bd, features_bd)]
    )


def _squared_distances(a_bd: np.ndarray, b_bd: np.ndarray) -> Sequence:
    """Yields rows of the first set, and their squared distances to the whole second set, in float64."""
    a_bd, b_bd = a_bd.astype(np.float64), b_bd.astype(np.float64)
    b_squares = (b_bd**2).sum(axis=1)
    for start in range(0, len(a_bd), _CHUNK):
        rows = slice(start, start + _CHUNK)
        part_bd = a_bd[rows]
        yield rows, ((part_bd**2).sum(axis=1)[:, None] + b_squares[None] - 2 * part_bd @ b_bd.T).clip(min=0)
