"""What a part consists of."""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement: `prepare` compiles, perhaps beside other cases, and `run` has the device for itself.

    run: from what `prepare` gave to figures by name.
    """

    run: Callable[[Any], dict]
    prepare: Callable[[], Any] = lambda: None
