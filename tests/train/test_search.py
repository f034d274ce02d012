import pytest

from igpt_jax.train.search import first_peak


@pytest.mark.parametrize(
    ("measures", "stops_at"),
    [
        ([1], 0),
        ([1, 2, 3], 2),  # no fall: the last so far
        ([1, 3, 2, 9], 1),  # what follows a fall is never seen
        ([5, 4, 9], 0),
        ([2, 2, 1], 1),  # an equal one is no fall
        ([(90.0, -0.5), (90.0, -0.4), (90.0, -0.6)], 1),  # at equal accuracy, the loss
    ],
)
def test_a_search_stops_at_the_first_fall(measures, stops_at):
    assert first_peak(measures) == stops_at
