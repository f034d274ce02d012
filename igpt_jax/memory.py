"""Configures the host's memory allocator for training steps."""

import ctypes
import os
import pathlib
import threading
import time

_LOOK_EVERY = 0.2  # seconds
_GROWN = 2**18  # KiB; whenever the peak memory has grown by this much, freed memory is returned to the system


def keep_freed_memory() -> None:
    """Makes glibc reuse freed memory, because page faults otherwise take up to half of a training step on a CPU.

    Glibc asks for slightly more memory than was freed, so a step may not fit into the memory that the step before has
    freed, and take new memory.  A thread therefore returns all freed memory to the system each time that the process
    has grown, and none while it does not grow.

    Call it at the start of a process.  Programs other than `python -m igpt_jax`, such as benchmarks, need it too.
    """
    if "CS_GNU_LIBC_VERSION" in os.confstr_names:
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
        for parameter, value in ((m_trim_threshold, -1), (m_mmap_max, 0), (m_arena_max, 1)):
            libc.mallopt(parameter, value)
        threading.Thread(target=_return_freed_memory, args=(libc,), name="return_freed_memory", daemon=True).start()


def _return_freed_memory(libc: ctypes.CDLL) -> None:
    highest = 0
    while True:
        peak = _peak()
        if peak > highest + _GROWN:
            libc.malloc_trim(0)
            highest = peak
        time.sleep(_LOOK_EVERY)


def _peak() -> int:
    """The peak memory of this process in KiB.  That of getrusage would include the process that forked it."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
