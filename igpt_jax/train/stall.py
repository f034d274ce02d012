"""Warns when the input pipeline stalls: otherwise a run that waits looks like one that works."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import TypeVar

PATIENCE = 30.0  # seconds

T = TypeVar("T")


@contextlib.contextmanager
def announcing_stalls(batches: Iterator[T], patience: float = PATIENCE) -> Iterator[Iterator[T]]:
    """Passes batches through, and warns on stderr about one that does not come.

    The watch costs a thread that wakes a few times in `patience`, and nothing for each batch.

    Args:
      batches: the input pipeline.
      patience: seconds to wait for a batch before the first warning; each further one takes twice as long.

    Yields:
      The same batches.
    """
    waiting_since: float | None = None
    ended = threading.Event()

    def watch() -> None:
        said_of: float | None = None
        limit = patience
        while not ended.wait(patience / 5):
            since = waiting_since
            if since is None:
                continue
            if since != said_of:
                limit = patience
            if time.monotonic() - since > limit:
                said_of, limit = since, 2 * limit
                print(
                    f"waiting for the next batch since {time.monotonic() - since:.0f} s: "
                    f"is the place of the data (data.directory) slow or gone?",
                    file=sys.stderr,
                    flush=True,
                )

    def passed_on() -> Iterator[T]:
        nonlocal waiting_since
        while True:
            waiting_since = time.monotonic()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                waiting_since = None
            yield batch

    threading.Thread(target=watch, name="announce stalls", daemon=True).start()
    try:
        yield passed_on()
    finally:
        ended.set()
