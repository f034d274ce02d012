"""The allocator: what is freed is kept for the next step, and what no step can use goes back."""

import subprocess
import sys

import pytest

PROGRAM = """if True:
    import ctypes, pathlib, time
    from igpt_jax.memory import keep_freed_memory
    keep_freed_memory()
    libc, array = ctypes.CDLL(None), ctypes.c_void_p()
    libc.malloc.restype = ctypes.c_void_p
    for _ in range(6):  # steps, each with an aligned array of 400 MiB, and something small that stays above it
        libc.posix_memalign(ctypes.byref(array), 64, 400 * 2**20)
        ctypes.memset(array, 1, 400 * 2**20)
        libc.malloc(2000)
        libc.free(array)
        time.sleep(0.5)
    print(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_holes_that_no_step_can_use_are_given_back():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 1500 * 2**10  # KiB; without, five or six of 400 MiB
