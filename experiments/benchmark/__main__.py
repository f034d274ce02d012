"""Compares the speed of this package with that of other libraries, its peers, in the same run.

    python -m experiments.benchmark [ENTRY ...] [--out=DIRECTORY]

Every entry first checks that both sides compute the same thing, and warms both up.  Then it measures them in
alternating rounds; for training steps, each side has a process of its own.  It prints the median of each side, and the
median of the ratios of the rounds.  The ratio is the more reliable number, since both sides of a round meet the same
conditions; above 1, ours is faster.  The extra `test` installs the peers.  An entry whose peer is not installed is left
out, with a message.  With --out, results are kept in a file that is named after the processor, so that those of several
machines stand side by side; `python -m experiments.benchmark.table` prints them.
"""

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import re
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from experiments.benchmark.measure import DRAWN, Result, machine
from experiments.tables import write_json
from igpt_jax.cores import two_devices
from igpt_jax.memory import keep_freed_memory

ENTRIES = {
    "startup": "startup:startup",
    "train": "train:train",
    "train_s": "train:train_s",
    "sample": "sample:sample",
    "windows": "sample:windows",
    "tokens": "data:tokens",
    "input": "data:input",
    "palette": "data:palette",
    "probe": "probe:probe",
    "fid": "fid:fid",
    "growth": "growth:growth",
    "profile": "profile:profile",
}


def main(arguments: list[str]) -> int:
    """Prints what it measures.  Returns the exit status; bad arguments exit with 2."""
    parser = argparse.ArgumentParser("experiments.benchmark", description="Compares this package with its peers.")
    parser.add_argument(
        "entries", nargs="*", metavar="ENTRY", help=f"one of {', '.join(ENTRIES)}, or all; default: all"
    )
    parser.add_argument(
        "--out",
        metavar="DIRECTORY",
        type=pathlib.Path,
        help="also write results to DIRECTORY/PROCESSOR.json, and figures; keeps its other entries",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.entries) - {*ENTRIES, "all"}:
        parser.error(f"there is no entry {unknown.pop()!r}; choose of {', '.join(ENTRIES)}")
    entries = options.entries if options.entries and "all" not in options.entries else list(ENTRIES)
    if len(entries) > 1:
        statuses = [_in_a_process_of_its_own(entry, options) for entry in entries]
        return int(any(statuses))
    keep_freed_memory()
    if entries[0] in ("sample", "windows", "fid"):
        two_devices()  # as `python -m igpt_jax sample` and `quality` do
    _measure(entries[0], options.out)
    return 0


def _in_a_process_of_its_own(entry: str, options: argparse.Namespace) -> int:
    """Measures an entry in a new process, which memory and threads of earlier entries cannot affect."""
    out = [f"--out={options.out}"] if options.out else []
    return subprocess.call([sys.executable, "-m", "experiments.benchmark", entry, *out])


def _measure(entry: str, out: pathlib.Path | None) -> None:
    versions = machine()
    print(", ".join(f"{name} {value}" for name, value in versions.items()), flush=True)
    module, function = ENTRIES[entry].split(":")
    try:
        measure = getattr(importlib.import_module(f"experiments.benchmark.{module}"), function)
        results = measure(out and out / f"{entry}.png") if entry in DRAWN else measure()
    except ModuleNotFoundError as absent:
        print(f"{entry}: left out, since {absent.name} is not installed")
        return
    for result in results:
        print(result.describe(), flush=True)
    if out:
        write(out, entry, results, versions)


def write(out: pathlib.Path, entry: str, results: list[Result], versions: dict[str, str]) -> None:
    """Writes an entry's results to the file of this processor, in place of its earlier ones."""
    path = out / (re.sub(r"[^a-z0-9]+", "-", versions["processor"].lower()).strip("-") + ".json")
    table = json.loads(path.read_text()) if path.exists() else {}
    command = f"python -m experiments.benchmark {entry} --out={out.name}"
    rows = [dataclasses.asdict(result) | {"ratio": result.ratio} for result in results]
    table[entry] = {"results": rows, "command": command, "versions": versions}
    write_json(path, table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
