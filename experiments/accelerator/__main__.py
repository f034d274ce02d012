"""Checks and measures the library on a GPU or a TPU within a few minutes, the most important cases first.

    python -m experiments.accelerator --out=DIR [--minutes=7] [--parts=correct,training,peers,drawing,probe,recipes]

It needs jax, flax, optax and orbax-checkpoint; the part `peers` also needs torch.  It needs neither TensorFlow nor
transformers nor a network.

Every part runs in a process of its own, for a share of the minutes that are left, and consists of cases.  Each case is
written to DIR/PART.json as soon as it is finished, so if the machine goes away, only the case under way is lost.  Run
the same command again to do the cases that are missing or failed; the others are kept.

`--rehearsal` runs the same code with tiny networks, on any machine.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

from experiments.accelerator.comparisons import comparisons
from experiments.accelerator.results import Results, table
from experiments.arguments import local_directory
from igpt_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
# Relative shares of the time.  A part gets its share of the time that is left for it and the parts after it.
SHARES = {"correct": 0.15, "training": 0.33, "peers": 0.27, "drawing": 0.18, "probe": 0.07, "recipes": 0.1}
GRACE = 3  # seconds that a part may exceed its limit before it is killed


def main(arguments: list[str]) -> int:
    """Runs the parts, and prints all results after each.  Returns the exit status 0; bad arguments exit with 2."""
    parser = argparse.ArgumentParser(
        "experiments.accelerator",
        description="Checks and measures the library on a GPU or a TPU. What is finished in DIR is not done again.",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=local_directory, required=True, help="where to write one JSON file for each part"
    )
    parser.add_argument("--minutes", type=float, default=7.0, help="time for all parts (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(SHARES), help="parts to run, in this order (default: %(default)s)")
    parser.add_argument("--rehearsal", action="store_true", help="use tiny networks; works on any machine")
    options = parser.parse_args(arguments)
    parts = options.parts.split(",")
    if unknown := set(parts) - set(SHARES):
        parser.error(f"there is no part {unknown.pop()!r}; choose from {', '.join(SHARES)}")
    if options.minutes <= 0:
        parser.error(f"--minutes={options.minutes:g} must be positive")
    end = time.monotonic() + 60 * options.minutes
    options.out.mkdir(parents=True, exist_ok=True)
    device = _describe_device()
    if device["platform"] == "cpu" and not options.rehearsal:
        parser.error("jax finds no GPU or TPU here; add --rehearsal to try the code with tiny networks")
    print(json.dumps(device, indent=2), flush=True)
    for i, part in enumerate(parts):
        share = SHARES[part] / sum(SHARES[later] for later in parts[i:])
        try:
            _run_part(part, options, device, share * (end - time.monotonic()))
        except InputError as error:
            parser.error(str(error))
        print(f"\n{table(options.out, list(SHARES))}\n{comparisons(options.out)}", flush=True)
    return 0


def _describe_device() -> dict[str, Any]:
    """Describes the device in a process of its own, since this process must not take the accelerator's memory."""
    command = [sys.executable, "-m", "experiments.accelerator.device"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def _run_part(part: str, options: argparse.Namespace, device: dict[str, Any], seconds: float) -> None:
    results = Results.open(options.out, part)
    if results.finished:
        print(f"{part}: finished before", flush=True)
        return
    rehearsal = ["--rehearsal"] if options.rehearsal else []
    typed = " ".join(["python -m experiments.accelerator", f"--parts={part}", *rehearsal])
    results.describe(device, typed, options.rehearsal)
    command = [sys.executable, "-m", "experiments.accelerator.part", part, f"--out={options.out}", *rehearsal]
    print(f"{part}: {seconds:.0f} s at most", flush=True)
    # JAX takes three quarters of a GPU's memory by default.  This takes all but what CUDA itself needs.
    environment = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.93"} | os.environ
    process = subprocess.Popen([*command, f"--seconds={seconds:.0f}"], cwd=ROOT, env=environment)
    try:
        status = process.wait(seconds + GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"{part}: cut off", flush=True)
    else:
        if status:
            print(f"{part}: ended with status {status}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
