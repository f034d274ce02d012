"""Progress: a bar on a terminal, sparse lines in a log, nothing for short work."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from igpt_jax.progress import track

PROGRAM = """
import time
from igpt_jax import progress
progress.FIRST_SECONDS, progress.SECONDS = {first}, 0.2
with progress.progress("features", 400, "image") as advance:
    for _ in range(4):
        time.sleep(0.15)
        advance(100)
"""


def test_a_log_gets_lines_with_what_is_done_and_what_is_left():
    error = run(PROGRAM.format(first=0.1))
    lines = error.splitlines()
    assert lines
    assert all(re.fullmatch(r"features: [123]00 of 400 images, 0:00:0\d left", line) for line in lines)


def test_short_work_says_nothing_in_a_log():
    assert run(PROGRAM.format(first=5)) == ""


def test_a_terminal_gets_a_bar_that_goes_when_the_work_is_done():
    primary, secondary = pty.openpty()
    termios.tcsetwinsize(primary, (24, 80))
    subprocess.run([sys.executable, "-c", PROGRAM.format(first=0.1)], stderr=secondary, check=True)
    shown = os.read(primary, 100_000).decode()
    os.close(secondary)
    assert "100/400" in shown
    assert "features: 100 of" not in shown
    assert shown.rstrip("\r\n").split("\r")[-1].strip() == ""


def test_track_hands_on_every_batch_as_it_is():
    batches = [[1, 2], [3]]
    assert list(track(batches, "features", 3, "image", len)) == batches


def test_a_failure_inside_is_not_hidden():
    def batches():
        yield [1, 2]
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        list(track(batches(), "features", 3, "image", len))


def run(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
