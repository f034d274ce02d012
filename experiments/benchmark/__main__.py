"""Ours beside what people use now, measured in turns in the same run.

    python -m experiments.benchmark [ENTRY ...] [--json=FILE]

Every entry checks first that both sides compute the same thing, warms both up, and then measures them in alternating
rounds; training steps in a process a side.  It prints the median of each side and of the ratio of each round: the ratio
is what means something, since both sides share the machine's moods.  More than 1 means that ours is faster.  The peers
come with the extra `test`; an entry whose peer is absent is left out with a word.
"""

import argparse
import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from experiments.benchmark.measure import Result, machine
from igpt_jax.cores import two_devices
from igpt_jax.files import atomic_write
from igpt_jax.memory import keep_freed_memory

ENTRIES = {
    "startup": "startup:startup",
    "train": "train:train",
    "train_s": "train:train_s",
    "sample": "sample:sample",
    "tokens": "data:tokens",
    "input": "data:input",
    "palette": "data:palette",
    "probe": "probe:probe",
    "growth": "growth:growth",
    "profile": "profile:profile",
}


def main(arguments: list[str]) -> int:
    """Prints what it measures, as it does.  Returns the exit status."""
    parser = argparse.ArgumentParser("experiments.benchmark", description="Measures ours beside its peers.")
    parser.add_argument(
        "entries", nargs="*", metavar="ENTRY", help=f"of {', '.join(ENTRIES)}; or all, as if none is given"
    )
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path, help="also write them there; keeps other entries")
    options = parser.parse_args(arguments)
    if unknown := set(options.entries) - {*ENTRIES, "all"}:
        parser.error(f"there is no entry {unknown.pop()!r}; choose of {', '.join(ENTRIES)}")
    entries = options.entries if options.entries and "all" not in options.entries else list(ENTRIES)
    if len(entries) > 1:
        return max([_in_a_process_of_its_own(entry, options) for entry in entries])
    keep_freed_memory()
    if entries == ["sample"]:
        two_devices()  # as `python -m igpt_jax sample` does
    _measure(entries[0], options.json)
    return 0


def _in_a_process_of_its_own(entry, options):
    """What one leaves in memory, and how it sees the cores, does not touch the next."""
    json_flag = [f"--json={options.json}"] if options.json else []
    return subprocess.call([sys.executable, "-m", "experiments.benchmark", entry, *json_flag])


def _measure(entry, path):
    found = machine()
    print(", ".join(f"{name} {value}" for name, value in found.items()), flush=True)
    module, function = ENTRIES[entry].split(":")
    try:
        results = getattr(importlib.import_module(f"experiments.benchmark.{module}"), function)()
    except ModuleNotFoundError as absent:
        print(f"{entry}: left out, since {absent.name} is not installed")
        return
    for result in results:
        print(result.describe(), flush=True)
    if path:
        _write(path, entry, results, found)


def _write(path: pathlib.Path, entry: str, results: list[Result], found: dict[str, str]) -> None:
    """Puts an entry's results into the file, in place of its earlier ones."""
    table = json.loads(path.read_text()) if path.exists() else {}
    command = f"python -m experiments.benchmark {entry} --json={path.name}"
    rows = [dataclasses.asdict(result) | {"ratio": result.ratio} for result in results]
    table[entry] = {"results": rows, "command": command, "versions": found}
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
