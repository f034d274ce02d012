"""The paper's search: values are tried one after another until the next one does worse."""

from collections.abc import Sequence


def first_peak(measures: Sequence) -> int:
    """Where a sequential search stops: the index of the last measure before the first fall.

    Nothing after the fall counts.  Without a fall it is the last index, and the search may go on.  Measures are
    anything that can be ordered, better ones greater.  The paper tries learning rates so, "stopping once the final
    validation loss starts increasing" (section 3.4).
    """
    falls = (i for i in range(1, len(measures)) if measures[i] < measures[i - 1])
    return next(falls, len(measures)) - 1
