"""One prediction made of several."""

import numpy as np


def modal_vote(predictions_nb: np.ndarray, classes: int, seed: int) -> np.ndarray:
    """Takes the class that most of n predictions name, for each image; ties are broken at random (paper, section 4.6).

    predictions_nb: (n, b) integers in [0, classes).  seed: of the ties.  Returns (b,) int32.
    """
    votes_cb = np.stack([(predictions_nb == c).sum(axis=0, dtype=np.int16) for c in range(classes)])
    drawn_cb = np.random.default_rng(seed).random(votes_cb.shape, np.float32)
    return np.where(votes_cb == votes_cb.max(axis=0), drawn_cb, -1).argmax(axis=0).astype(np.int32)
