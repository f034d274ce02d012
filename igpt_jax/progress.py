"""The progress of long work: a bar on a terminal, and a line now and then in a log."""

import contextlib
import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

FIRST_SECONDS, SECONDS = 5, 30  # in a log: until the first line, and between any two

T = TypeVar("T")


@contextlib.contextmanager
def progress(what: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows on stderr how far some work is, and how long it will still take.

    A terminal gets a bar, which goes when the work is done.  Anything else gets lines such as `features: 4,096 of
    16,384 images, 0:00:21 left`: the first after five seconds, then one every half minute.  Work of less than five
    seconds shows nothing there.  Of several processes only the primary one shows its progress.

    Args:
      what: the work, such as "features".
      total: how many units there are.
      unit: one of them, such as "image".
      done: units that an earlier call has done.

    Yields:
      A function to call with the number of units that have been done since the last call.
    """
    import tqdm  # not at the top of the file, since every command imports this one, and --help shows no progress

    hidden = not _is_primary_process()
    bar = tqdm.tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=unit,
        leave=False,
        dynamic_ncols=True,
        disable=hidden or not sys.stderr.isatty(),
    )
    start = time.monotonic()
    now_done, next_line = done, start + FIRST_SECONDS

    def advance(units: int) -> None:
        nonlocal now_done, next_line
        now_done += units
        bar.update(units)
        now = time.monotonic()
        if bar.disable and not hidden and now >= next_line and now_done < total:
            left = datetime.timedelta(seconds=round((now - start) * (total - now_done) / max(now_done - done, 1)))
            print(f"{what}: {now_done:,} of {total:,} {unit}s, {left} left", file=sys.stderr, flush=True)
            next_line = now + SECONDS

    with bar:
        yield advance


def track(
    items: Iterable[T], what: str, total: int, unit: str, units_of: Callable[[T], int] = lambda _: 1
) -> Iterator[T]:
    """Yields the items, and shows the progress of whoever takes them; see `progress`.

    Args:
      items: what is worked on, such as batches of images.
      what: the work, such as "features".
      total: how many units all items have together.
      unit: one of them, such as "image".
      units_of: how many units an item has.
    """
    with progress(what, total, unit) as advance:
        for item in items:
            yield item
            advance(units_of(item))


def _is_primary_process() -> bool:
    jax = sys.modules.get("jax")
    return jax is None or not jax.distributed.is_initialized() or jax.process_index() == 0
