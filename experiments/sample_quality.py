"""How good samples are, by temperature, top-p and their number: of the paper's recipe and of the modern one.

    python -m experiments.sample_quality emoji --workdir=runs/sample_quality

DATA is digits, emoji or photographs.  Every number is a mean over three seeds, beside the floor: held-out images
compared with the training images in the same way, and in the same number.

FID's network cannot judge images of 12x12 or 16x16 pixels.  The features are those of one fixed Image GPT, which is
trained first: with the paper's recipe and with a seed that no measured model has.  The same command makes it again, and
the result has a hash of its weights.  So these numbers compare the rows of one table, and are no FIDs.

For each model and setting, `python -m igpt_jax quality` writes its own quality.json in the model's workdir.
"""

import argparse
import itertools
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.arguments import local_directory
from experiments.benchmark.measure import machine
from experiments.runs import Job, work_directory
from experiments.scheduler import ROOT, RunFailed, Scheduler, exit_status, pinned_pool
from experiments.tables import write_json
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.progress import track
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
# Temperature and top-p; each varies alone.  Then the number of samples does: these parts of the images.
SAMPLERS = ((0.7, 1.0), (0.8, 1.0), (0.9, 1.0), (1.0, 1.0), (1.1, 1.0), (1.0, 0.9), (1.0, 0.95))
PARTS = (8, 4, 2)
MEASURED = {
    "fid": "Fréchet distance",
    "kid": "kernel distance",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}


class Setting(NamedTuple):
    """What one column of measurements varies."""

    temperature: float
    top_p: float
    images: int  # samples, and held-out images


def settings(images: int) -> list[Setting]:
    """All settings, of at most so many images."""
    return [Setting(*sampler, images) for sampler in SAMPLERS] + [Setting(1.0, 1.0, images // part) for part in PARTS]


def main(arguments: list[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0 for success, 1 if a run failed, 2 for bad input, 130 if interrupted.
    """
    parser = argparse.ArgumentParser("experiments.sample_quality", description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="DATA", help=", ".join(RUNS))
    parser.add_argument("--workdir", type=local_directory, required=True, help="directory of all runs and results")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="commands at a time; default: the number of cores"
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

    cases = list(itertools.product(RECIPES, settings(runs["images"]), SEEDS))

    def measure_one(case: tuple[str, Setting, int]) -> dict[str, Any]:
        recipe, setting, seed = case
        workdir = work_directory(jobs[recipe], directory, seed)
        return quality(workdir, setting, features, runs["views"], environment)

    measured: dict[tuple[str, Setting], list[dict[str, Any]]] = {}
    with pinned_pool(options.jobs) as pool:
        results = track(pool.map(measure_one, cases), "measuring", len(cases), "result")
        for (recipe, setting, _), result in zip(cases, results, strict=True):
            measured.setdefault((recipe, setting), []).append(result)
    facts = {
        "data": options.data,
        "command": command,
        "seeds": SEEDS,
        "machine": machine(),
        "features": next(iter(measured.values()))[0]["features"]["network"],
        "images": runs["images"],
        "training_images_views": runs["views"],
    }
    write_results(directory / "results" / options.data, facts, summarize(measured))


def _job(data: str, recipe: str) -> Job:
    config, arguments = RUNS[data][recipe]
    return Job(f"{data}-{recipe}", "train", config, arguments)


def quality(
    workdir: pathlib.Path,
    setting: Setting,
    features: pathlib.Path,
    views: int,
    environment: dict[str, str],
) -> dict[str, Any]:
    """Returns the quality.json of a model's samples, and makes it first if it is not there.

    Raises:
      RunFailed: the command failed.
    """
    temperature, top_p, images = setting
    out = workdir / f"quality-temperature{temperature:g}-top_p{top_p:g}-n{images}"
    result = out / "quality.json"
    if not result.exists():
        flags = [f"--n={images}", f"--views={views}", f"--temperature={temperature:g}", f"--top_p={top_p:g}"]
        flags += ["--metrics=fid,kid,prdc", f"--features={features}", f"--workdir={workdir}", f"--out={out}"]
        command = [sys.executable, "-m", "igpt_jax", "quality", *flags]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
        if ended.returncode:
            raise RunFailed(f"quality of {workdir} failed: {ended.stderr.strip()[-300:]}")
    return json.loads(result.read_text())


def summarize(measured: dict[tuple[str, Setting], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Means and deviations over seeds: one row for each recipe and setting, and then the floors of held-out images.

    Args:
      measured: for each recipe and setting, the contents of quality.json by seed.
    """
    rows = [
        {"recipe": recipe} | setting._asdict() | _row(results, "samples")
        for (recipe, setting), results in measured.items()
    ]
    floors = {setting.images: _row(results, "held_out") for (_, setting), results in reversed(measured.items())}
    for images, floor in sorted(floors.items()):
        rows.append({"recipe": "held-out images", "temperature": None, "top_p": None, "images": images} | floor)
    return rows


def _row(results: Sequence[dict[str, Any]], which: str) -> dict[str, Any]:
    values = {name: [result["features"][which][name] for result in results] for name in MEASURED}
    values["nearest"] = [result["nearest_training_image"][which]["median"] for result in results]
    values["copies"] = [result["nearest_training_image"][which]["copies"] for result in results]
    return {
        name: {"mean": float(np.mean(x)), "std": float(np.std(x, ddof=1)) if len(x) > 1 else 0.0, "values": x}
        for name, x in values.items()
    }


def write_results(directory: pathlib.Path, facts: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Writes results.json, table.md, figure.png (by temperature) and number.png (by the number of images)."""
    write_json(directory / "results.json", facts | {"rows": rows})
    with atomic_write(directory / "table.md") as partial:
        partial.write_text(table(facts, rows))
    data, distance = facts["data"], "Fréchet distance in own features"
    plain = [row for row in rows if row["top_p"] in (None, 1)]
    whole = [row for row in plain if row["images"] == facts["images"]]
    floor = next(row for row in whole if row["temperature"] is None)
    temperatures = sorted(row["temperature"] for row in whole if row["recipe"] == RECIPES[0])
    curves = {"held-out images": [(x, floor["fid"]["mean"], floor["fid"]["std"]) for x in temperatures]}
    curves |= {f"{recipe} recipe": _curve(whole, recipe, "temperature") for recipe in RECIPES}
    plot_curves(directory / "figure.png", f"Samples of {data}, by temperature", "temperature", distance, curves)
    as_learned = [row for row in plain if row["temperature"] in (None, 1)]
    curves = {"held-out images": _curve(as_learned, "held-out images", "images")}
    curves |= {f"{recipe} recipe": _curve(as_learned, recipe, "images") for recipe in RECIPES}
    plot_curves(directory / "number.png", f"Samples of {data}, by their number", "images", distance, curves)


def _curve(rows: Sequence[dict[str, Any]], recipe: str, x: str) -> list[tuple[float, float, float]]:
    return sorted((row[x], row["fid"]["mean"], row["fid"]["std"]) for row in rows if row["recipe"] == recipe)


def table(facts: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Formats the rows as Markdown."""
    names = [*MEASURED.values(), "nearest training image (RMS)", "copies"]
    lines = [
        f"# Sample quality: {facts['data']}",
        "",
        f"Mean and deviation over {len(facts['seeds'])} seeds, of samples and of held-out images against the training "
        f"images, in features of {facts['features']}. These are no FIDs.",
        "",
        f"| recipe | temperature | top-p | images | {' | '.join(names)} |",
        "|---|---|---|---|" + "---|" * len(names),
    ]
    for row in rows:
        cells = [f"{row[name]['mean']:.4g} ± {row[name]['std']:.2g}" for name in (*MEASURED, "nearest", "copies")]
        setting = ("" if row[name] is None else f"{row[name]:g}" for name in Setting._fields)
        lines.append(f"| {' | '.join([row['recipe'], *setting, *cells])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
