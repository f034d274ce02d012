"""A word when the input pipeline stands still: otherwise a run that waits looks like one that works."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

PATIENCE = 30.0  # seconds


@contextlib.contextmanager
def announcing_stalls(batches: Iterator, patience: float = PATIENCE) -> Iterator[Iterator]:
    """Passes the batches on; when one is longer in coming than `patience` seconds, says so, and again after twice that.

    The watch costs a thread that wakes a few times in `patience`, and nothing for each batch.
    """
    waiting_since, ended = None, threading.Event()

    def watch():
        said_of, limit = None, patience
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

    def passed_on():
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
