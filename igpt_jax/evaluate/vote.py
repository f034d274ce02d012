"""The prediction of a BERT model: the mode over several random masks of the same image."""

import numpy as np


def modal_vote(predictions_nb: np.ndarray, seed: int) -> np.ndarray:
    """The class that most of the n predictions of each image name; those named equally often have equal chances.

    predictions_nb: (n, b) integers.  Ties are broken by `seed`.  Returns (b,), of the same type.  The paper evaluates
    BERT models so, with 5 masks: "take the modal prediction, breaking ties at random".
    """
    votes_nb = (predictions_nb[:, None] == predictions_nb[None]).sum(axis=1)  # for the class that each names
    chances_nb = np.random.default_rng(seed).random(votes_nb.shape)  # below 1: decides among equal votes alone
    # Classes that tie are named by equally many of the n, so one of these at random is one of those at random.
    return np.take_along_axis(predictions_nb, (votes_nb + chances_nb).argmax(axis=0)[None], axis=0)[0]
