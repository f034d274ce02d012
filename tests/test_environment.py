"""Settings of JAX in the environment that cannot work end a command with one line."""

import os
import subprocess
import sys

import pytest

import igpt_jax


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("JAX_ENABLE_X64=1", "JAX_ENABLE_X64=1 does not work"),
        ("JAX_ENABLE_X64=maybe", "JAX does not start: invalid truth value 'maybe'"),
        ("JAX_PLATFORMS=abacus", "JAX does not start with JAX_PLATFORMS=abacus"),
    ],
)
def test_a_setting_that_cannot_work_is_named_with_the_remedy(variable, message, tmp_path):
    name, value = variable.split("=")
    finished = subprocess.run(
        [sys.executable, "-m", "igpt_jax", "sample", f"--workdir={tmp_path}", "--out=x"],
        cwd=os.path.dirname(os.path.dirname(igpt_jax.__file__)),
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("igpt_jax sample: ")
    assert message in line
