"""What SIGTERM, SIGINT and a cluster's notice do to a run: it saves, says so, and ends as if it had finished."""

import contextlib
import os
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from igpt_jax.errors import Preempted


class Preemption:
    """Turns the first signal into `Preempted`, at a moment when nothing is lost; the second ends the process at once.

    A context manager, for the main thread.  A process alone listens for SIGTERM and SIGINT and raises where it stands;
    inside `held` the signal waits for `reached`.  Several processes stop only at `reached`, all after the same step:
    there JAX's preemption service listens for SIGTERM on behalf of all, and SIGINT is handed on to it.
    """

    def __init__(self) -> None:
        self._several = jax.process_count() > 1
        self._signal: int | None = None
        self._held = False

    def __enter__(self) -> "Preemption":
        numbers = (signal.SIGINT,) if self._several else (signal.SIGINT, signal.SIGTERM)
        self._before = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def held(self, hold: bool = True) -> Iterator[None]:
        """Inside, a signal waits; inside `held(False)` it does not, and one that has waited is let through."""
        before, self._held = self._held, hold
        try:
            self._raise_unless_held()
            yield
        finally:
            self._held = before

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; called after every step, by all processes."""
        if self._several and multihost_utils.reached_preemption_sync_point(step):
            self._signal = signal.SIGTERM
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return self._signal is not None

    @property
    def notice(self) -> Preempted:
        """What to raise."""
        name = "nothing" if self._signal is None else signal.Signals(self._signal).name
        return Preempted(f"stopped by {name}")

    def _receive(self, number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        if self._signal is not None:
            os.kill(os.getpid(), number)
        elif self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._signal = number
            os.write(2, f"{signal.Signals(number).name}: stopping; the next one stops at once\n".encode())
            self._raise_unless_held()

    def _raise_unless_held(self) -> None:
        if self._signal is not None and not self._held and not self._several:
            raise self.notice
