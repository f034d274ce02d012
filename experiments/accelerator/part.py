"""Runs the cases of one part until its time is up; `experiments.accelerator` starts this program for each part."""

import argparse
import concurrent.futures
import importlib
import os
import pathlib
import sys
import time
import traceback
from typing import Any

from experiments.accelerator.cases import Case
from experiments.accelerator.results import Results, line
from experiments.accelerator.sizes import FULL, TINY

CORES_TO_COMPILE = 4  # cores that XLA keeps busy when it compiles one program, roughly


def main(arguments: list[str]) -> None:
    """Runs every case that has no figures yet.  A case that fails is recorded, and the next one follows.

    A few cases are prepared at the same time, each in a thread; then they run one after another.
    """
    parser = argparse.ArgumentParser("experiments.accelerator.part")
    parser.add_argument("part")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rehearsal", action="store_true")
    options = parser.parse_args(arguments)
    end = time.monotonic() + options.seconds
    results = Results.open(options.out, options.part)
    module = importlib.import_module(f"experiments.accelerator.{options.part}")
    cases = module.cases(TINY if options.rehearsal else FULL, options.out)
    missing = [(name, case) for name, case in cases.items() if not results.has(name)]
    together = max(1, (os.cpu_count() or 1) // CORES_TO_COMPILE)
    for i in range(0, len(missing), together):
        some = missing[i : i + together]
        if time.monotonic() > end:
            print(f"{options.part}: no time is left for {some[0][0]!r} and what follows", flush=True)
            return
        with concurrent.futures.ThreadPoolExecutor(together) as pool:
            prepared = [pool.submit(case.prepare) for _, case in some]
        for (name, case), future in zip(some, prepared, strict=True):
            start = time.monotonic()
            outcome = _outcome(case, future)
            results.add(name, outcome, time.monotonic() - start)
            print(f"  {line(name, outcome)}", flush=True)
    results.finish()


def _outcome(case: Case, prepared: concurrent.futures.Future) -> dict[str, Any]:
    try:
        return {"figures": case.run(prepared.result())}
    except Exception:
        return {"error": traceback.format_exc()[-3000:]}


if __name__ == "__main__":
    main(sys.argv[1:])
