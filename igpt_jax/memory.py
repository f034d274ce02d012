"""The allocator of the host, told what a training step needs."""

import ctypes
import os
import pathlib
import threading
import time

_LOOK_EVERY = 0.2  # seconds
_GROWN = 2**18  # KiB of memory more than ever before, whereupon what lies idle is given back


def keep_freed_memory() -> None:
    """Has glibc keep and reuse what is freed; by default a CPU spends up to half of a training step on page faults.

    Glibc asks for a little more than it had freed, so that a step may take new memory beside a hole of its own size.
    Each time that the process has grown, all holes are therefore given back; where it does not grow, nothing is.

    Call it first in a process: in other programs than `python -m igpt_jax` too, such as benchmarks.
    """
    if "CS_GNU_LIBC_VERSION" in os.confstr_names:
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
        for parameter, value in ((m_trim_threshold, -1), (m_mmap_max, 0), (m_arena_max, 1)):
            libc.mallopt(parameter, value)
        threading.Thread(target=_give_back_holes, args=(libc,), name="give_back_holes", daemon=True).start()


def _give_back_holes(libc):
    highest = 0
    while True:
        peak = _peak()
        if peak > highest + _GROWN:
            libc.malloc_trim(0)
            highest = peak
        time.sleep(_LOOK_EVERY)


def _peak():
    """KiB that this program has had in memory at most; getrusage would begin with those of the process that forked."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
