"""The paper's tables and figures, from nothing: runs what is missing, resumes what was cut off, writes what came out.

    python -m experiments.reproduce all --scale=miniature --workdir=runs/miniature
    python -m experiments.reproduce table1 --scale=paper --workdir=runs/paper --list

TABLE is one of table1 to table5, figure2 to figure4, ablations, or all.  Every run is a use of `python -m igpt_jax` in
WORKDIR/NAME-seedK; what several tables need is made once.  Each table goes to WORKDIR/results/TABLE: results.json,
table.md, and figure.png of a figure.  `all` also decides the ten claims: results/claims.json and claims.md.

--scale=miniature (three seeds) runs on the CPU, as many runs side by side as there are cores.  --scale=paper (one seed)
runs them one by one on the accelerators of this machine; --list prints the commands instead, to be run anywhere.
"""

import argparse
import importlib
import os
import pathlib
import platform
import sys
from collections.abc import Sequence
from types import ModuleType

from experiments import claims, scales
from experiments.benchmark.measure import machine
from experiments.scheduler import Scheduler, total_seconds
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
SEEDS = {"miniature": (0, 1, 2), "paper": (0,)}


def table_modules(name: str) -> dict[str, ModuleType]:
    """The files of a table, or of all.

    Raises:
      InputError: there is no such table.
    """
    if name != "all" and name not in TABLES:
        raise InputError(f"there is no table {name!r}; choose one of all, {', '.join(TABLES)}")
    names = TABLES if name == "all" else [name]
    return {name: importlib.import_module(f"experiments.{TABLES[name]}") for name in names}


def main(arguments: list[str]) -> int:
    """Returns the exit status: 0, 1 where a run failed, 2 for what cannot work, 130 where interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return reproduce(options, "python -m experiments.reproduce " + " ".join(arguments))
    except InputError as error:
        print(f"experiments.reproduce: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("experiments.reproduce: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _parser():
    parser = argparse.ArgumentParser("experiments.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("table", metavar="TABLE", help=f"all, {', '.join(TABLES)}")
    parser.add_argument("--scale", choices=scales.SCALES, required=True)
    parser.add_argument("--workdir", type=pathlib.Path, required=True, help="directory of all runs")
    parser.add_argument("--jobs", type=int, help="runs at a time; in the miniature, the cores if not given; else 1")
    parser.add_argument("--seeds", help="such as 0,1,2; the first one searches learning rates")
    parser.add_argument("--split", choices=("test", "validation"), default="test", help="images that are measured")
    parser.add_argument("--list", action="store_true", help="print the missing commands, and run none")
    return parser


def reproduce(options: argparse.Namespace, command: str) -> int:
    """Makes the runs and writes the tables.  Returns the exit status."""
    modules = table_modules(options.table)
    rows = {name: module.rows(options.scale) for name, module in modules.items()}
    wanted = [row.run for found in rows.values() for row in found if row.run]
    scheduler = _scheduler(options)
    if options.list:
        print("\n".join(scheduler.missing_commands(wanted)))
        return 0
    failures = scheduler.make(wanted)
    measured = {
        name: [measure(row, scheduler.directory, scheduler.seeds) for row in found] for name, found in rows.items()
    }
    facts = {
        "command": command,
        "scale": options.scale,
        "split": options.split,
        "seeds": scheduler.seeds,
        "machine": machine() | {"system": platform.system()},
        "jobs": scheduler.jobs,
        "seconds_of_all_runs": round(total_seconds(scheduler.directory)),
    }
    results = scheduler.directory / "results"
    for name, module in modules.items():
        write_table(results / name, module, measured[name], facts)
    if options.table == "all" and not failures:
        decided = claims.decide(measured, options.scale, command)
        write_json(results / "claims.json", decided)
        _write(results / "claims.md", claims.summary(decided))
        print(claims.summary(decided), end="")
    print(f"results: {results}")
    for failure in failures:
        print(f"experiments.reproduce: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _scheduler(options):
    miniature = options.scale == "miniature"
    jobs = options.jobs if options.jobs is not None else ((os.cpu_count() or 1) if miniature else 1)
    if jobs < 1:
        raise InputError(f"--jobs={jobs} must be at least 1")
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
    if miniature:
        environment["JAX_PLATFORMS"] = "cpu"
    return Scheduler(directory, tuple(map(int, seeds)), options.split, jobs, environment)


def write_table(directory: pathlib.Path, module: ModuleType, rows: Sequence[dict], facts: dict) -> None:
    """Writes results.json, table.md, and figure.png where the file of the table draws one and there is what to draw."""
    write_json(directory / "results.json", {"title": module.TITLE, **facts, "rows": rows})
    _write(directory / "table.md", markdown(module.TITLE, rows))
    if hasattr(module, "draw") and any(row["values"] for row in rows):
        module.draw(directory / "figure.png", rows)


def _write(path: pathlib.Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
