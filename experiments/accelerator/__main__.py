"""Checks and measures the library on a GPU or a TPU, in order of worth, within a few minutes.

    python -m experiments.accelerator --out=DIR [--minutes=7] [--parts=correct,training,peers,drawing,probe]

It needs jax, flax, optax and orbax-checkpoint; the part `peers` needs torch too.  TensorFlow, transformers and a
network are not needed.

Every part runs in a process of its own, with a share of the minutes that are left.  A part consists of cases.  Each
case is written to DIR/PART.json as soon as it is done, so a machine that goes away takes only the case under way with
it.  Run it again with the same DIR: what is there stays, and what is missing or failed is done.

`--rehearsal` runs the same code with tiny networks, on any machine.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from experiments.accelerator.results import Results, table

ROOT = pathlib.Path(__file__).parents[2]
# What a part gets of the time that it and the parts after it have left.
SHARES = {"correct": 0.15, "training": 0.33, "peers": 0.27, "drawing": 0.18, "probe": 0.07}
GRACE = 3  # seconds a part has beyond its limit before it is killed


def main(arguments: list[str]) -> int:
    """Runs the parts and prints the table after each.  Returns the exit status: 0, or 2 for bad arguments."""
    parser = argparse.ArgumentParser(
        "experiments.accelerator",
        description="Checks and measures the library on a GPU or a TPU. What is finished in DIR is not done again.",
    )
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, required=True, help="gets one JSON file a part")
    parser.add_argument("--minutes", type=float, default=7.0, help="time for everything (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(SHARES), help="which, and in which order (default: %(default)s)")
    parser.add_argument("--rehearsal", action="store_true", help="tiny networks, on any machine")
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
        _run_part(part, options, device, share * (end - time.monotonic()))
        print(f"\n{table(options.out, list(SHARES))}", flush=True)
    return 0


def _describe_device() -> dict:
    """In a process of its own: this one must not take the accelerator's memory."""
    command = [sys.executable, "-m", "experiments.accelerator.device"]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


def _run_part(part, options, device, seconds):
    results = Results.open(options.out, part)
    if results.finished:
        print(f"{part}: finished before", flush=True)
        return
    rehearsal = ["--rehearsal"] if options.rehearsal else []
    results.describe(device, " ".join(["python -m experiments.accelerator", f"--parts={part}", *rehearsal]))
    command = [sys.executable, "-m", "experiments.accelerator.part", part, f"--out={options.out}", *rehearsal]
    print(f"{part}: {seconds:.0f} s at most", flush=True)
    # All of the memory but what CUDA itself needs; JAX would take three quarters.
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
