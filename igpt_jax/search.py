"""The paper's search for a learning rate: try one after the other until the result gets worse."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any


def search(rates: Iterable[float], measure: Callable[[float], Any]) -> dict[float, Any]:
    """Measures rates in order, and stops after the first that is worse than the one before it.

    The paper descends by factors of about 3: 30, 10, 3, ... for a linear probe, and from about a tenth of the
    pretraining rate for fine-tuning.

    Args:
      rates: learning rates, in the order in which to try them.
      measure: from a rate to its result, where higher is better: a held-out accuracy, or (accuracy, -loss), in which
        the loss breaks ties.

    Returns:
      The result of each rate that was tried.  `best` selects among them.

    Example:
      >>> search((30, 10, 3, 1), {30: 50.0, 10: 61.5, 3: 60.0}.get)
      {30: 50.0, 10: 61.5, 3: 60.0}

    Reference:
      Paper, section 3.4.
    """
    measured: dict[float, Any] = {}
    before = None
    for rate in rates:
        measured[rate] = measure(rate)
        if before is not None and measured[rate] < before:
            break
        before = measured[rate]
    return measured


def best(measured: Mapping[float, Any]) -> float:
    """The rate with the highest result; of equal ones, the rate tried first."""
    return max(measured, key=lambda rate: measured[rate])
