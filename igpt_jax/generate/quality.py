"""Exact statistics of samples that need no feature network.

Metrics such as FID depend on a downloaded network; these depend on the data alone. The commands compute each of them
twice against the training images: for samples, and for as many held-out images. The number of the held-out images is
what perfect samples would get.
"""

import numpy as np

from igpt_jax.progress import track

_CHUNK = 256  # training images that are compared at once; as float64 they take eight times their bytes


def nearest(images: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest training image of each image, by root mean square difference over pixels and channels.

    Args:
      images: (b, r, r, 3) uint8.
      train: (n, r, r, 3) uint8.

    Returns:
      The distances, (b,) float64 in 0..255, where 0 is an exact copy; and the indices into `train`, (b,) integers.
    """
    images_bd = images.reshape(len(images), -1).astype(np.float64)
    squares_b = np.einsum("bd,bd->b", images_bd, images_bd)
    best_b, index_b = np.full(len(images), np.inf), np.zeros(len(images), np.int64)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(train), _CHUNK)]
    for chunk in track(chunks, "nearest training images", len(train), "image", lambda chunk: len(train[chunk])):
        train_nd = train[chunk].reshape(-1, images_bd.shape[1]).astype(np.float64)
        squares_n = np.einsum("nd,nd->n", train_nd, train_nd)
        squared_bn = squares_b[:, None] + squares_n - 2 * images_bd @ train_nd.T  # exact: all are integers
        squared_b = squared_bn.min(axis=1)
        index_b = np.where(squared_b < best_b, chunk.start + squared_bn.argmin(axis=1), index_b)
        best_b = np.minimum(squared_b, best_b)
    return np.sqrt(best_b / images_bd.shape[1]), index_b


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

    def counted(tokens_bt: np.ndarray) -> dict[str, np.ndarray]:
        side = round(tokens_bt.shape[1] ** 0.5)
        grid = tokens_bt.reshape(-1, side, side).astype(np.int64)
        row_pairs = grid[:, :, :-1] * vocabulary + grid[:, :, 1:]
        column_pairs = grid[:, :-1] * vocabulary + grid[:, 1:]
        return {"tokens": grid, "row_pairs": row_pairs, "column_pairs": column_pairs}

    def divergence(ours: np.ndarray, theirs: np.ndarray) -> float:
        (a, counts_a), (b, counts_b) = (np.unique(x, return_counts=True) for x in (ours, theirs))
        values = np.union1d(a, b)  # those that occur; of vocabulary**2 pairs, most do not
        p, q = np.zeros((2, len(values)))
        p[np.searchsorted(values, a)], q[np.searchsorted(values, b)] = counts_a / ours.size, counts_b / theirs.size
        return jensen_shannon(p, q)

    theirs = counted(train_bt)
    return {name: divergence(ours, theirs[name]) for name, ours in counted(tokens_bt).items()}


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
