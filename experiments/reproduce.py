"""Reproduces the paper's tables and figures: runs what is missing, resumes what was interrupted, writes the results.

    python -m experiments.reproduce all --scale=miniature --workdir=runs/miniature
    python -m experiments.reproduce table1 --scale=paper --workdir=runs/paper --list

TABLE is one of table1 to table5, figure2 to figure4, ablations, or all of these; or longer_bert, in_color or
codes_and_pixels, which go beyond the paper.  Every run is one `python -m igpt_jax` command with the workdir
WORKDIR/NAME-seedK; a run that several tables need is made once.  Each table is written to WORKDIR/results/TABLE:
results.json, table.md, and figures.
`all` also decides the ten claims of claims.py, and writes results/claims.json and results/claims.md.  longer_bert and
in_color decide three of them anew, in their own directories.

--scale=miniature (three seeds) runs on the CPU, with as many runs at a time as there are cores.  --scale=paper (one
seed) runs one at a time on the accelerators of this machine.  --list prints the commands instead, to be run anywhere.
"""

import argparse
import importlib
import os
import pathlib
import platform
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from experiments import claims, scales
from experiments.arguments import local_directory
from experiments.benchmark.measure import machine
from experiments.scheduler import Scheduler, exit_status, total_seconds, worker_count
from experiments.tables import markdown, measure, write_json
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write

TABLES = {
    "table1": "table1_probe",
    "table2": "table2_imagenet",
    "table3": "table3_finetune",
    "table4": "table4_low_data",
    "table5": "table5_pretrain",
    "figure2": "figure2_layers",
    "figure3": "figure3_loss_and_probe",
    "figure4": "figure4_bert",
    "ablations": "ablations",
}
BEYOND_THE_PAPER = {  # not among "all"
    "longer_bert": "longer_bert",
    "in_color": "in_color",
    "codes_and_pixels": "codes_and_pixels",
}
SEEDS = {"miniature": (0, 1, 2), "paper": (0,)}


def table_modules(name: str) -> dict[str, ModuleType]:
    """Imports the file of a table, or the files of all tables.

    Args:
      name: a key of `TABLES` or `BEYOND_THE_PAPER`; or "all", which means `TABLES`.

    Returns:
      The modules by the names of their tables.

    Raises:
      InputError: there is no such table.
    """
    known = TABLES | BEYOND_THE_PAPER
    if name != "all" and name not in known:
        raise InputError(f"there is no table {name!r}; choose one of all, {', '.join(known)}")
    names = TABLES if name == "all" else [name]
    return {name: importlib.import_module(f"experiments.{known[name]}") for name in names}


def main(arguments: list[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0 for success, 1 if a run failed, 2 for bad input, 130 if interrupted.
    """
    options = _parser().parse_args(arguments)
    command = "python -m experiments.reproduce " + " ".join(arguments)
    return exit_status("experiments.reproduce", lambda: reproduce(options, command))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("experiments.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("table", metavar="TABLE", help=f"all, {', '.join(TABLES | BEYOND_THE_PAPER)}")
    parser.add_argument("--scale", choices=scales.SCALES, required=True)
    parser.add_argument("--workdir", type=local_directory, required=True, help="directory of all runs and results")
    parser.add_argument(
        "--jobs", type=int, help="runs at a time; default: the number of cores for miniature, 1 for paper"
    )
    parser.add_argument(
        "--seeds", help="default: 0,1,2 for miniature, 0 for paper; the first seed searches learning rates"
    )
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="images to measure on")
    parser.add_argument("--list", action="store_true", help="print the commands that are missing, and run nothing")
    return parser


def reproduce(options: argparse.Namespace, command: str) -> int:
    """Runs what is missing and writes the tables.

    Args:
      options: the parsed command line.
      command: the command line as text, for the results.

    Returns:
      The exit status: 0, or 1 if a run failed.

    Raises:
      InputError: an option cannot work.
    """
    modules = table_modules(options.table)
    rows = {name: module.rows(options.scale) for name, module in modules.items()}
    wanted = [row.job for its_rows in rows.values() for row in its_rows if row.job]
    scheduler = _scheduler(options)
    if options.list:
        print("\n".join(scheduler.missing_commands(wanted)))
        return 0
    failures = scheduler.make(wanted)
    measured = {
        name: [measure(row, scheduler.directory, scheduler.seeds) for row in its_rows]
        for name, its_rows in rows.items()
    }
    facts = {
        "command": command,
        "scale": options.scale,
        "split": options.split,
        "seeds": scheduler.seeds,
        "machine": machine() | {"system": platform.system()},
        "jobs": scheduler.workers,
        "seconds_of_all_runs": round(total_seconds(scheduler.directory)),
    }
    results = scheduler.directory / "results"
    for name, module in modules.items():
        write_table(results / name, module, measured[name], facts)
    wanted = claims.claims(options.table, options.scale)
    if wanted and not failures and len(scheduler.seeds) > 1:
        decided = claims.decide(wanted, measured, command)
        directory = results if options.table == "all" else results / options.table
        write_json(directory / "claims.json", decided)
        _write(directory / "claims.md", claims.summary(decided))
        print(claims.summary(decided), end="")
    print(f"results: {results}")
    for failure in failures:
        print(f"experiments.reproduce: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _scheduler(options: argparse.Namespace) -> Scheduler:
    workers = worker_count(options.jobs, options.scale)
    seeds = options.seeds.split(",") if options.seeds else SEEDS[options.scale]
    if not all(str(seed).isdecimal() for seed in seeds) or len(set(seeds)) != len(seeds):
        raise InputError(f"--seeds={options.seeds} is no list of different whole numbers, such as 0,1,2")
    directory = options.workdir
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(directory.absolute() / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if options.scale == "miniature":
        environment["JAX_PLATFORMS"] = "cpu"
    return Scheduler(directory, tuple(map(int, seeds)), options.split, workers, environment)


def write_table(
    directory: pathlib.Path, module: ModuleType, rows: Sequence[dict[str, Any]], facts: dict[str, Any]
) -> None:
    """Writes results.json, table.md and, if the table is a figure with at least one value, figure.png.

    Args:
      directory: of the table.
      module: the file of the table.
      rows: from `measure`.
      facts: what holds for all rows, such as the command and the machine.
    """
    write_json(directory / "results.json", {"title": module.TITLE, **facts, "rows": rows})
    _write(directory / "table.md", markdown(module.TITLE, rows))
    if hasattr(module, "draw") and any(row["values"] for row in rows):
        module.draw(directory / "figure.png", rows)


def _write(path: pathlib.Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
