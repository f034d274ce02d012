"""Runs the cases of one part until its time is over: what `experiments.accelerator` starts for each part."""

import argparse
import importlib
import pathlib
import sys
import time
import traceback

from experiments.accelerator.results import Results
from experiments.accelerator.sizes import FULL, TINY


def main(arguments: list[str]) -> None:
    """Runs every case that has no figures yet; a case that fails is recorded, and the next one follows."""
    parser = argparse.ArgumentParser("experiments.accelerator.part")
    parser.add_argument("part")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rehearsal", action="store_true")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.seconds
    results = Results.open(options.out, options.part)
    module = importlib.import_module(f"experiments.accelerator.{options.part}")
    for name, run in module.cases(TINY if options.rehearsal else FULL, options.out).items():
        if results.has(name):
            continue
        if time.monotonic() > end:
            print(f"{options.part}: no time is left for {name!r} and what follows", flush=True)
            return
        start = time.monotonic()
        try:
            outcome = {"figures": run()}
        except Exception:
            outcome = {"error": traceback.format_exc()[-3000:]}
        results.add(name, outcome, time.monotonic() - start)
        print(f"{options.part}: {name}: {outcome}", flush=True)
    results.finish()


if __name__ == "__main__":
    main(sys.argv[1:])
