"""The search for a learning rate, on measures made by hand."""

import pytest

from igpt_jax.search import best, search


@pytest.mark.parametrize(
    ("measures", "tried", "chosen"),
    [
        ((50.0, 61.0, 60.0, 99.0), 3, 10),  # ends at the first that is worse, whatever would come
        ((50.0, 61.0, 61.0, 70.0), 4, 1),  # an equal one is not worse
        ((50.0, 61.0, 61.0, 60.0), 4, 10),  # of equals the first
        ((50.0, 40.0, 60.0, 70.0), 2, 30),
    ],
)
def test_rates_are_tried_until_one_is_worse_than_the_one_before(measures, tried, chosen):
    rates, asked = (30, 10, 3, 1), []

    def measure(rate):
        asked.append(rate)
        return measures[rates.index(rate)]

    found = search(rates, measure)
    assert asked == list(found) == list(rates[:tried])
    assert best(found) == chosen
