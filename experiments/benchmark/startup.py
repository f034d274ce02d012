"""Measures how long it takes until something happens: --help, import, and the first training step."""

import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from experiments.benchmark.measure import SECONDS, Result, seconds

ROOT = pathlib.Path(__file__).parents[2]


def startup() -> list[Result]:
    """Times `--help`, `import igpt_jax`, and the training command of the digits up to its first step."""
    python = [sys.executable]
    return [
        _timed("startup: python -m igpt_jax --help", [*python, "-m", "igpt_jax", "--help"]),
        _timed("startup: import igpt_jax", [*python, "-c", "import igpt_jax"]),
        _first_step(),
    ]


def _timed(name: str, command: list[str]) -> Result:
    times = [seconds(lambda: subprocess.run(command, cwd=ROOT, check=True, capture_output=True)) for _ in range(4)]
    return Result(name, SECONDS, statistics.median(times[1:]), remark="median of three, files cached")


def _first_step() -> Result:
    """Includes the fit of the palette, compilation and the first batch.  Kills the run after its first metrics."""
    with tempfile.TemporaryDirectory() as directory:
        workdir = pathlib.Path(directory) / "digits"
        command = [sys.executable, "-m", "igpt_jax", "train", "--config=experiments/digits.py", "--config.log_every=1"]
        start = time.perf_counter()
        with subprocess.Popen([*command, f"--workdir={workdir}"], cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            metrics = workdir / "metrics.jsonl"
            while process.poll() is None and not (metrics.exists() and metrics.read_text().endswith("\n")):
                time.sleep(0.02)
            elapsed = time.perf_counter() - start
            process.kill()
    return Result("startup: digits to first step", SECONDS, elapsed, remark="with data and compilation")
