"""The paper's search for a learning rate: one after the other, until it gets worse (section 3.4)."""

from collections.abc import Callable, Iterable


def search(rates: Iterable[float], measure: Callable[[float], float]) -> dict[float, float]:
    """Measures the rates in their order, and ends after the first that is worse than the one before it.

    The paper goes down by factors of about 3: 30, 10, 3, ... for a linear probe; for fine-tuning from about a tenth of
    the rate of pretraining.

    Args:
      measure: from a rate to what should be high, such as a held-out accuracy.
    Returns:
      {rate: measure} of those tried; `best` names the one to take.

    >>> search((30, 10, 3, 1), {30: 50.0, 10: 61.5, 3: 60.0}.get)
    {30: 50.0, 10: 61.5, 3: 60.0}
    """
    found, before = {}, float("-inf")
    for rate in rates:
        found[rate] = measure(rate)
        if found[rate] < before:
            break
        before = found[rate]
    return found


def best(found: dict[float, float]) -> float:
    """The rate of the highest measure, the first tried of equals."""
    return max(found, key=found.get)
