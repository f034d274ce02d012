import numpy as np

from igpt_jax.evaluate.vote import modal_vote


def test_the_class_named_most_often_wins_whatever_the_seed():
    predictions_nb = np.array([[2, 7], [1, 7], [2, 7], [0, 1], [1, 1], [2, 0]])
    for seed in range(20):
        assert modal_vote(predictions_nb, seed).tolist() == [2, 7]


def test_one_prediction_is_the_vote():
    predictions_nb = np.arange(6)[None]
    np.testing.assert_array_equal(modal_vote(predictions_nb, 0), predictions_nb[0])


def test_ties_are_broken_evenly_and_by_the_seed():
    # Two classes named twice and one once: each of the two wins half the images, the third none.
    predictions_nb = np.tile(np.array([[4], [1], [4], [1], [0]]), (1, 10_000))
    vote_b = modal_vote(predictions_nb, 0)
    counts = np.bincount(vote_b, minlength=5)
    assert counts[0] == 0
    assert abs(counts[1] - 5000) < 4 * np.sqrt(2500)  # four standard deviations
    assert counts[1] + counts[4] == 10_000
    np.testing.assert_array_equal(modal_vote(predictions_nb, 0), vote_b)
    assert (modal_vote(predictions_nb, 1) != vote_b).any()
