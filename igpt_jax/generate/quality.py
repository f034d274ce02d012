"""Exact statistics of samples that need no feature network.

Metrics such as FID depend on a downloaded network; these depend on the data alone. The commands compute each of them
twice against the training images: for samples, and for as many held-out images. The number of the held-out images is
what perfect samples would get.
"""

import numpy as np

_CHUNK = 64  # images compared at once with all training images


def nearest(images: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest training image of each image, by root mean square difference over pixels and channels.

    Args:
      images: (b, r, r, 3) uint8.
      train: (n, r, r, 3) uint8.

    Returns:
      The distances, (b,) float64 in 0..255, where 0 is an exact copy; and the indices into `train`, (b,) integers.
    """
    train_bd = train.reshape(len(train), -1).astype(np.float64)
    squares_b = (train_bd**2).sum(axis=1)
    distances, indices = [], []
    for start in range(0, len(images), _CHUNK):
        chunk_bd = images[start : start + _CHUNK].reshape(-1, train_bd.shape[1]).astype(np.float64)
        squared = (chunk_bd**2).sum(axis=1)[:, None] + squares_b - 2 * chunk_bd @ train_bd.T  # exact: all are integers
        indices.append(squared.argmin(axis=1))
        distances.append(np.sqrt(squared.min(axis=1) / train_bd.shape[1]))
    return np.concatenate(distances), np.concatenate(indices)


def divergences(tokens_bt: np.ndarray, train_bt: np.ndarray, vocabulary: int) -> dict[str, float]:
    """Computes Jensen-Shannon divergences between the token histograms of two sets of images.

    Args:
      tokens_bt: (b, t) integers in [0, vocabulary), of square images.
      train_bt: (n, t), likewise.
      vocabulary: number of tokens v.

    Returns:
      In nats, 0 to ln 2: "tokens", of single tokens; "row_pairs" and "column_pairs", of pairs of tokens that are
      neighbors in a row and in a column.
    """

    def histograms(tokens_bt: np.ndarray) -> dict[str, np.ndarray]:
        side = round(tokens_bt.shape[1] ** 0.5)
        grid = tokens_bt.reshape(-1, side, side).astype(np.int64)
        row_pairs = grid[:, :, :-1] * vocabulary + grid[:, :, 1:]
        column_pairs = grid[:, :-1] * vocabulary + grid[:, 1:]
        counted = {"tokens": grid, "row_pairs": row_pairs, "column_pairs": column_pairs}
        return {name: np.bincount(x.reshape(-1), minlength=vocabulary**2) / x.size for name, x in counted.items()}

    ours, theirs = histograms(tokens_bt), histograms(train_bt)
    return {name: jensen_shannon(ours[name], theirs[name]) for name in ours}


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Computes (KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2, in nats.

    Args:
      p: probabilities that sum to 1.
      q: probabilities of the same shape.

    Returns:
      0 if the distributions are equal, up to ln 2 if they share no support.
    """

    def entropy(x: np.ndarray) -> float:
        return -(x[x > 0] * np.log(x[x > 0])).sum()

    return float(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)
