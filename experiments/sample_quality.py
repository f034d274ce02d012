"""How good samples are, by temperature and top-p: of the paper's recipe and of the modern one, on three data sets.

    python -m experiments.sample_quality emoji --workdir=runs/sample_quality

DATA is digits, emoji or photographs.  Every number is a mean over three seeds, beside the floor: held-out images
compared with the training images in the same way, and in the same number.

FID's network cannot judge images of 12x12 or 16x16 pixels.  The features are those of one fixed Image GPT, which is
trained first: with the paper's recipe and with a seed that no measured model has.  The same command makes it again, and
the result has a hash of its weights.  So these numbers compare the rows of one table, and are no FIDs.

For each model and sampler, `python -m igpt_jax quality` writes its own quality.json in the model's workdir.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.arguments import local_directory
from experiments.benchmark.measure import machine
from experiments.runs import Job, work_directory
from experiments.scheduler import ROOT, RunFailed, Scheduler, exit_status
from experiments.tables import write_json
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.report.curves import plot_curves

SEEDS, FEATURES_SEED = (0, 1, 2), 20
# For each data set: the config file and its arguments of each recipe, with the rates that were found on held-out
# images; how many images to compare, and views of each training image.
RUNS: dict[str, dict[str, Any]] = {
    "digits": {
        "paper": ("modern.py", ("data=digits", "with=paper", "steps=1500", "rate=0.006")),
        "modern": ("modern.py", ("data=digits", "with=modern", "steps=500", "rate=0.0015", "muon_rate=0.06")),
        "images": 360,
        "views": 8,
    },
    "emoji": {
        "paper": ("emoji.py", ("recipe=paper",)),
        "modern": ("emoji.py", ("recipe=modern",)),
        "images": 360,
        "views": 1,
    },
    "photographs": {
        "paper": ("photographs.py", ("recipe=paper",)),
        "modern": ("photographs.py", ("recipe=modern",)),
        "images": 1024,
        "views": 1,
    },
}
RECIPES = ("paper", "modern")
# Temperature and top-p; each varies alone.
SAMPLERS = ((0.7, 1.0), (0.8, 1.0), (0.9, 1.0), (1.0, 1.0), (1.1, 1.0), (1.0, 0.9), (1.0, 0.95))
MEASURED = {
    "fid": "Fréchet distance",
    "kid": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}


def main(arguments: list[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0 for success, 1 if a run failed, 2 for bad input, 130 if interrupted.
    """
    parser = argparse.ArgumentParser("experiments.sample_quality", description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help=", ".join(RUNS))
    parser.add_argument("--workdir", type=local_directory, required=True, help="directory of all runs and results")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time; default: the number of cores"
    )
    options = parser.parse_args(arguments)
    command = "python -m experiments.sample_quality " + " ".join(arguments)
    return exit_status("experiments.sample_quality", lambda: measure(options, command))


def measure(options: argparse.Namespace, command: str) -> None:
    """Trains what is missing, measures what is missing, and writes the results.

    Raises:
      InputError: there is no such data set.
      RunFailed: a run failed.
    """
    if options.data not in RUNS:
        raise InputError(f"there is no data set {options.data!r} here; choose one of {', '.join(RUNS)}")
    runs, directory = RUNS[options.data], options.workdir
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    featuring = Scheduler(directory / "features", (FEATURES_SEED,), "test", options.jobs, environment)
    scheduler = Scheduler(directory, SEEDS, "test", options.jobs, environment)
    jobs = {recipe: _job(options.data, recipe) for recipe in RECIPES}
    featuring.make_all([jobs["paper"]])
    scheduler.make_all(list(jobs.values()))
    features = work_directory(jobs["paper"], featuring.directory, FEATURES_SEED)

    measured = {}
    for recipe, job in jobs.items():
        workdirs = [work_directory(job, directory, seed) for seed in SEEDS]
        for sampler in SAMPLERS:
            measured[recipe, sampler] = [
                quality(workdir, sampler, features, runs["images"], runs["views"], environment) for workdir in workdirs
            ]
    facts = {
        "data": options.data,
        "command": command,
        "seeds": SEEDS,
        "machine": machine(),
        "features": measured[RECIPES[0], SAMPLERS[0]][0]["features"]["network"],
        "images": runs["images"],
        "training_images_views": runs["views"],
    }
    write_results(directory / "results" / options.data, facts, summarize(measured))


def _job(data: str, recipe: str) -> Job:
    config, arguments = RUNS[data][recipe]
    return Job(f"{data}-{recipe}", "train", config, arguments)


def quality(
    workdir: pathlib.Path,
    sampler: tuple[float, float],
    features: pathlib.Path,
    images: int,
    views: int,
    environment: dict[str, str],
) -> dict[str, Any]:
    """Returns the quality.json of a model's samples, and makes it first if it is not there.

    Raises:
      RunFailed: the command failed.
    """
    temperature, top_p = sampler
    out = workdir / f"quality-temperature{temperature:g}-top_p{top_p:g}"
    result = out / "quality.json"
    if not result.exists():
        flags = [f"--n={images}", f"--views={views}", f"--temperature={temperature:g}", f"--top_p={top_p:g}"]
        flags += ["--metrics=fid,kid,prdc", f"--features={features}", f"--workdir={workdir}", f"--out={out}"]
        command = [sys.executable, "-m", "igpt_jax", "quality", *flags]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        if ended.returncode:
            raise RunFailed(f"quality of {workdir} failed: {ended.stderr.strip()[-300:]}")
    return json.loads(result.read_text())


def summarize(measured: dict[tuple[str, tuple[float, float]], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means and deviations over seeds: one row for each recipe and sampler, and then the floor of held-out images.

    Args:
      measured: for each recipe and sampler, the contents of quality.json by seed.
    """
    rows = [
        {"recipe": recipe, "temperature": temperature, "top_p": top_p} | _row(results, "samples")
        for (recipe, (temperature, top_p)), results in measured.items()
    ]
    first = next(iter(measured.values()))
    return [*rows, {"recipe": "held-out images", "temperature": None, "top_p": None} | _row(first, "held_out")]


def _row(results: Sequence[dict[str, Any]], which: str) -> dict[str, Any]:
    values = {name: [result["features"][which][name] for result in results] for name in MEASURED}
    values["nearest"] = [result["nearest_training_image"][which]["median"] for result in results]
    values["copies"] = [result["nearest_training_image"][which]["copies"] for result in results]
    return {
        name: {"mean": float(np.mean(x)), "std": float(np.std(x, ddof=1)) if len(x) > 1 else 0.0, "values": x}
        for name, x in values.items()
    }


def write_results(directory: pathlib.Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes results.json, table.md and figure.png."""
    write_json(directory / "results.json", facts | {"rows": rows})
    with atomic_write(directory / "table.md") as partial:
        partial.write_text(table(facts, rows))
    floor = rows[-1]["fid"]
    temperatures = [temperature for temperature, top_p in SAMPLERS if top_p == 1]
    curves = {"held-out images": [(x, floor["mean"], floor["std"]) for x in temperatures]}
    for recipe in RECIPES:
        chosen = [row for row in rows if row["recipe"] == recipe and row["top_p"] == 1]
        curves[f"{recipe} recipe"] = [(row["temperature"], row["fid"]["mean"], row["fid"]["std"]) for row in chosen]
    title = f"Samples of {facts['data']} against training images"
    plot_curves(directory / "figure.png", title, "temperature", "Fréchet distance in own features", curves)


def table(facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Formats the rows as Markdown."""
    names = [*MEASURED.values(), "nearest training image (RMS)", "copies"]
    lines = [
        f"# Sample quality: {facts['data']}",
        "",
        f"Mean and deviation over {len(facts['seeds'])} seeds. {facts['images']} samples of each model, against the",
        f"training images, in features of {facts['features']}. These are no FIDs.",
        "",
        f"| recipe | temperature | top-p | {' | '.join(names)} |",
        "|---|---|---|" + "---|" * len(names),
    ]
    for row in rows:
        cells = [f"{row[name]['mean']:.4g} ± {row[name]['std']:.2g}" for name in (*MEASURED, "nearest", "copies")]
        sampler = ("" if row[name] is None else f"{row[name]:g}" for name in ("temperature", "top_p"))
        lines.append(f"| {' | '.join([row['recipe'], *sampler, *cells])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
