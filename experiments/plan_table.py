"""Prints the table of tpu/README.md: what pretraining needs on several TPU slices, in both recipes.

    python -m experiments.plan_table > table.md

Needs libtpu (pip install 'igpt_jax[tpu]'), but no TPU.  Each row takes one to three minutes.
"""

import json
import subprocess
import sys
from typing import Any

PRETRAINING = "table5_pretrain.py:size={},resolution={}"
MODERN = "modern.py:size={},data=imagenet2012"
SLICES = {
    PRETRAINING.format("s", 32): ("v4:2x2x2", "v5e:2x4", "v5e:4x4", "v5e:8x8", "v5p:2x2x2", "v6e:2x4"),
    PRETRAINING.format("m", 32): ("v4:2x2x4", "v5e:4x4", "v5e:8x8", "v5p:2x2x4", "v6e:4x4"),
    PRETRAINING.format("l", 32): ("v4:2x4x4", "v5e:4x4", "v5e:8x8", "v5p:2x2x4", "v6e:4x4", "tpu7x:2x2x2"),
    PRETRAINING.format("l", 48): ("v4:4x4x4", "v5e:8x8", "v5p:2x2x4", "v6e:8x8"),
    (XL := PRETRAINING.format("xl", 64)): ("v4:4x4x4", "v5e:8x8", "v5p:4x4x4", "v6e:8x8", "tpu7x:2x2x4", "tpu7x:4x4x4"),
    **{MODERN.format(size): ("v5e:4x4", "v6e:4x4") for size in ("s", "m", "l")},
}
STEPS = {XL: 2_000_000}
# parallel.model, if not 1.  These slices have 128 devices, since a chip is two of them; so two devices share an image.
MODEL_WAYS = {(XL, "v4:4x4x4"): 2, (XL, "tpu7x:4x4x4"): 2}
HEADER = "| run | slice | devices | GiB a device | of | remat | ms a step | bound | MFU at most | hours |"


def main() -> None:
    """Compiles and prints the table row by row."""
    print(HEADER)
    print("|" + "---|" * (HEADER.count("|") - 1))
    for run, slices in SLICES.items():
        for topology in slices:
            print(row(run, topology), flush=True)


def row(run: str, topology: str) -> str:
    """Compiles one plan and formats it as a row; if it does not compile, the row has the error message."""
    command = ["plan", "--json", f"--config=experiments/{run}", f"--topology={topology}"]
    command.append(f"--config.parallel.model={MODEL_WAYS.get((run, topology), 1)}")
    finished = subprocess.run([sys.executable, "-m", "igpt_jax", *command], capture_output=True, text=True)
    if finished.returncode:
        return f"| {run} | {topology} | | {finished.stderr.strip().splitlines()[-1][:80]} | | | | | | |"
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
        plan["remat"],
        f"{1000 * seconds:.0f}",
        plan["bound"],
        f"{plan['mfu_ceiling']:.0%}",
        f"{seconds * STEPS.get(run, 1_000_000) / 3600:,.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
