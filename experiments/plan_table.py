"""Prints the table of tpu/README.md: what each of the paper's pretraining runs needs on several TPU slices.

    python -m experiments.plan_table > table.md

Needs libtpu (pip install 'igpt_jax[tpu]'), but no TPU.  Each row takes about a minute.
"""

import json
import subprocess
import sys
from typing import Any

SLICES = {
    "size=s,resolution=32": ("v4:2x2x2", "v5e:2x4", "v5e:4x4", "v5e:8x8", "v5p:2x2x2", "v6e:2x4"),
    "size=m,resolution=32": ("v4:2x2x4", "v5e:4x4", "v5e:8x8", "v5p:2x2x4", "v6e:4x4"),
    "size=l,resolution=32": ("v4:2x4x4", "v5e:4x4", "v5e:8x8", "v5p:2x2x4", "v6e:4x4"),
    "size=l,resolution=48": ("v4:4x4x4", "v5e:8x8", "v5p:2x2x4", "v6e:8x8"),
    "size=xl,resolution=64": ("v4:4x4x4", "v5e:8x8", "v5p:4x4x4", "v6e:8x8"),
}
STEPS = {"size=xl,resolution=64": 2_000_000}
# parallel.model, if not 1.  A v4 chip is two devices, and 64 images cannot be split over 128 devices, so two share one.
MODEL_WAYS = {("size=xl,resolution=64", "v4:4x4x4"): 2}
HEADER = (
    "| run | slice | devices | GiB a device (arguments + temporaries) | of | ms a step | bound | MFU at most | hours |"
)


def main() -> None:
    """Compiles and prints the table row by row."""
    print(HEADER)
    print("|---|---|---|---|---|---|---|---|---|")
    for run, slices in SLICES.items():
        for topology in slices:
            print(row(run, topology), flush=True)


def row(run: str, topology: str) -> str:
    """Compiles one plan and formats it as a row; if it does not compile, the row has the error message."""
    command = ["plan", "--json", f"--config=experiments/table5_pretrain.py:{run}", f"--topology={topology}"]
    command.append(f"--config.parallel.model={MODEL_WAYS.get((run, topology), 1)}")
    finished = subprocess.run([sys.executable, "-m", "igpt_jax", *command], capture_output=True, text=True)
    if finished.returncode:
        return f"| {run} | {topology} | | {finished.stderr.strip().splitlines()[-1][:80]} | | | | | |"
    return in_a_line(run, json.loads(finished.stdout))


def in_a_line(run: str, plan: dict[str, Any]) -> str:
    """Formats one plan as a row.  A step takes as long as the slowest part of its roofline."""
    gib = {name: count / 2**30 for name, count in plan["bytes_per_device"].items()}
    seconds = max(plan["seconds"].values())
    cells = [
        run,
        plan["topology"],
        plan["devices"],
        f"{gib['arguments']:.1f} + {gib['temporaries']:.1f}" + ("" if plan["fits"] else " **too much**"),
        f"{gib['hbm']:.0f}",
        f"{1000 * seconds:.0f}",
        plan["bound"],
        f"{plan['mfu_ceiling']:.0%}",
        f"{seconds * STEPS.get(run, 1_000_000) / 3600:,.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
