"""Statistics of samples that need no feature network: exact, and beside what held-out images get.

FID and its kin depend on a downloaded network; these depend on the data alone.  Each is computed alike for samples and
for as many held-out images, both against the training images, so that the second number says what the first may be.
"""

import numpy as np

_CHUNK = 64  # images compared at once with all training images


def nearest(images: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest training image of each image, by root mean square difference over pixels and channels.

    Both (b, r, r, 3) uint8.  Returns the distances, (b,) float64 in 0..255, where 0 is a copy, and the indices.
    """
    train_bd = train.reshape(len(train), -1).astype(np.float64)
    squares_b = (train_bd**2).sum(axis=1)
    distances, indices = [], []
    for start in range(0, len(images), _CHUNK):
        chunk_bd = images[start : start + _CHUNK].reshape(-1, train_bd.shape[1]).astype(np.float64)
        squared = (chunk_bd**2).sum(axis=1)[:, None] + squares_b - 2 * chunk_bd @ train_bd.T  # exact: integers
        indices.append(squared.argmin(axis=1))
        distances.append(np.sqrt(squared.min(axis=1) / train_bd.shape[1]))
    return np.concatenate(distances), np.concatenate(indices)


def divergences(tokens_bt: np.ndarray, train_bt: np.ndarray, vocabulary: int) -> dict[str, float]:
    """Jensen-Shannon divergences in nats, 0 to ln 2, between the histograms of two sets of images.

    Of single tokens, and of pairs of neighboring tokens in a row and in a column.
    """

    def histograms(tokens_bt):
        side = round(tokens_bt.shape[1] ** 0.5)
        grid = tokens_bt.reshape(-1, side, side).astype(np.int64)
        across = grid[:, :, :-1] * vocabulary + grid[:, :, 1:]
        down = grid[:, :-1] * vocabulary + grid[:, 1:]
        counted = {"tokens": grid, "row_pairs": across, "column_pairs": down}
        return {name: np.bincount(x.reshape(-1), minlength=vocabulary**2) / x.size for name, x in counted.items()}

    ours, theirs = histograms(tokens_bt), histograms(train_bt)
    return {name: jensen_shannon(ours[name], theirs[name]) for name in ours}


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """(KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2, in nats: 0 where they are equal, ln 2 where they never meet."""

    def entropy(x):
        return -(x[x > 0] * np.log(x[x > 0])).sum()

    return float(entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2)
