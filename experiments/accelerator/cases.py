"""The cases that a part consists of."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
      run: measures, with the device to itself: from the result of `prepare` to figures by name.
      prepare: compiles, possibly while other cases are prepared.
    """

    run: Callable[[Any], dict[str, Any]]
    prepare: Callable[[], Any] = lambda: None
