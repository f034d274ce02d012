"""The allocator of the host, told what a training step needs."""

import ctypes
import os


def keep_freed_memory() -> None:
    """Has glibc keep and reuse what is freed; by default a CPU spends up to half of a training step on page faults.

    Call it first in a process: in other programs than `python -m igpt_jax` too, such as benchmarks.
    """
    if "CS_GNU_LIBC_VERSION" in os.confstr_names:
        mallopt = ctypes.CDLL(None).mallopt
        m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
        for parameter, value in ((m_trim_threshold, -1), (m_mmap_max, 0), (m_arena_max, 1)):
            mallopt(parameter, value)
