"""Compares a modern training recipe with the paper's, and measures what each of its ingredients is worth.

    python -m igpt_jax train --config=experiments/modern.py:data=digits --workdir=runs/modern
    python -m igpt_jax train --config=experiments/modern.py:data=imagenet2012,size=l --workdir=runs/l
    python -m experiments.modern digits --workdir=runs/ablation

As a config, it works for any data set and size.  Its arguments: data=NAME as config.data.name; size=small|s|m|l|xl;
resolution, colors, steps; with=modern, with=paper, or ingredients joined by +, such as with=muon+rotary; rate and
muon_rate, the peak learning rates.  schedule=stable keeps the rate at its peak, and from=WORKDIR,at=STEP continues a
run from a checkpoint of such a run.

`python -m experiments.modern` compares the two recipes on data sets that two CPU cores can learn:

1. On held-out training images, it searches the learning rate of the paper's recipe, then both rates of the modern one.
2. With three seeds, it trains the paper's recipe for all steps, for half and for a third of them; and the modern one
   for as many and for a sixth, as branches of one long run.  It measures test images, and the loss of photographs on
   new squares (held_out_loss.py).
3. At a third of the steps, it adds each ingredient to the paper's recipe, and removes each from the modern one.  To the
   modern recipe it adds SwiGLU, in place of squared ReLU, and weight decay, which needs Muon.
4. It times a training step of all of them, in alternating rounds.

Every run that was measured is in results/DATA/search.json or results/DATA/runs.json, and is not made again.  To go on
with another machine's results, copy its results/ into the workdir first.
"""

import argparse
import dataclasses
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from experiments.arguments import local_directory, read_arguments
from experiments.benchmark.measure import Side, compare, machine
from experiments.benchmark.ours import training_step
from experiments.held_out_loss import held_out_loss
from experiments.recipe import INGREDIENTS, RECIPES, add_ingredients
from experiments.records import recorded
from experiments.runs import Job, Result, probe_accuracy, raw_pixels
from experiments.scheduler import Scheduler, exit_status
from experiments.tables import write_json
from igpt_jax.config import SIZES, ModelConfig, RunConfig, default_config
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.report.curves import plot_curves
from igpt_jax.search import best, search

SMALL = ModelConfig(layers=4, width=64, heads=2, unroll=4)
# For each data set: pixels a side, colors, training images, and steps of the paper's recipe.
EMBEDDED = {
    "digits": (12, 16, 1437, 1500),
    "emoji": (16, 128, 3199, 1500),
    "photographs": (16, 128, 4096, 1500),
}
WARMUP_STEPS = 50
LENGTHS = (6, 3, 2, 1)  # the modern recipe is trained for steps // length
SEEDS, SEARCHING_SEED = (0, 1, 2), 10
# Each is tried upwards until one is worse than the one before; where the lowest is the best, halves of it follow.
RATES, MUON_RATES = (1.5e-3, 3e-3, 6e-3, 12e-3), (0.03, 0.06, 0.12)
HALVINGS = 3
ROUNDS, STEPS_TIMED = 9, 10
MEASURED = {"nats_per_token": 4, "probe": 1}  # with the digits to print
TITLE = "The paper's recipe and today's"


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """One run, with the arguments above.

    Raises:
      InputError: an argument or an ingredient is not known.
    """
    chosen = read_arguments(
        arguments,
        **{"data": "digits", "size": ("small", *SIZES), "resolution": 0, "colors": 0, "steps": 0, "with": "modern"},
        **{"rate": 3e-3, "muon_rate": 0.0, "schedule": ("own", "stable"), "from": "", "at": 0},
        probe=("all", "last"),
    )
    config = default_config()
    side, colors, images, steps = EMBEDDED.get(chosen["data"], (32, 512, 0, 1_000_000))
    shape = SIZES.get(chosen["size"], SMALL)
    config.model.update({name: getattr(shape, name) for name in ("layers", "width", "heads", "unroll")})
    config.model.resolution, config.model.vocabulary = chosen["resolution"] or side, chosen["colors"] or colors
    config.data.name, config.steps = chosen["data"], chosen["steps"] or steps
    config.optimizer.learning_rate = chosen["rate"]
    if chosen["size"] != "small":
        config.model.dtype, config.model.remat = "bfloat16", "auto"
    if images:
        config.data.batch_size = 32
        config.data.fold_validation = True  # all options are chosen, so the validation images train the model too
        config.optimizer.warmup_epochs = WARMUP_STEPS * config.data.batch_size / images
        config.evaluate.batch_size = 40
        config.checkpoint_every = config.steps
    if chosen["data"] == "digits":  # which look different every time
        config.evaluate.views = config.evaluate.probe.augmented_epochs = 3
    add_ingredients(config, ingredients(chosen["with"]))
    if chosen["muon_rate"]:
        config.optimizer.muon_learning_rate = chosen["muon_rate"]
    if chosen["schedule"] == "stable":
        config.optimizer.schedule = "constant"
        config.keep_every = config.checkpoint_every = config.steps // 6  # the decays of all `LENGTHS` begin there
    if chosen["from"]:
        config.continue_from = f"{chosen['from']}/checkpoints/{chosen['at']}"
    if chosen["probe"] == "last":
        config.evaluate.probe.layers, config.evaluate.probe.augmented_epochs = (config.model.layers,), 0
    return config


def ingredients(text: str) -> tuple[str, ...]:
    """Reads the names in "a+b", or those of a recipe.

    Raises:
      InputError: an ingredient is not known.
    """
    names = RECIPES[text] if text in RECIPES else tuple(text.split("+"))
    for name in names:
        if name not in INGREDIENTS:
            raise InputError(f"with={text}: there is no {name}; give {', '.join(RECIPES)}, or {'+'.join(INGREDIENTS)}")
    return names


def training(data: str, names: Sequence[str], steps: int, *, rates: dict[str, float], **more: str | int) -> Job:
    """The job that trains with some ingredients.

    Args:
      data: a key of `EMBEDDED`.
      names: keys of `INGREDIENTS`; none of them is the paper's recipe.
      steps: of training.
      rates: "rate" and "muon_rate", the peak learning rates; the latter counts only with the ingredient "muon".
      **more: further arguments of `get_config`.
    """
    what = "+".join(names) or "paper"
    rated = {name: rate for name, rate in rates.items() if name == "rate" or "muon" in names}
    arguments = (
        {"data": data, "steps": steps, "with": what} | {name: f"{rate:g}" for name, rate in rated.items()} | more
    )
    numbers = "-".join(f"{rate:g}" for rate in rated.values())
    label = "-".join([data, what, f"{steps}", numbers, *map(str, more.values())])
    return Job(label, "train", "modern.py", tuple(f"{name}={value}" for name, value in arguments.items()))


def branches(data: str, rates: dict[str, float]) -> dict[int, Job]:
    """The jobs of the modern recipe at every length, by their steps: branches of one long run at the peak rate."""
    whole = EMBEDDED[data][-1]
    decay = default_config().optimizer.decay_fraction
    stable = training(data, RECIPES["modern"], round((1 - decay) * whole), rates=rates, schedule="stable", probe="last")
    jobs = {}
    for length in LENGTHS:
        steps = whole // length
        branch = training(data, RECIPES["modern"], steps, rates=rates, at=round((1 - decay) * steps))
        jobs[steps] = dataclasses.replace(branch, inputs=(("from", stable),))
    return jobs


def searched_rates(scheduler: Scheduler, data: str, records: pathlib.Path) -> dict[str, dict[str, float]]:
    """Searches the peak learning rates with the lowest held-out loss.

    The paper's recipe is searched at all steps, and the modern one at a third of them.

    Args:
      scheduler: runs the jobs.
      data: a key of `EMBEDDED`.
      records: the file that keeps the runs that were tried.  The rates are written beside it, to rates.json.

    Returns:
      {recipe: {argument: rate}}.

    Raises:
      RunFailed: a job failed.
    """

    def prepare() -> Callable[[Result], dict[str, Any]]:
        nats = held_out_loss(data, EMBEDDED[data][0], searching=True)
        return lambda result: {"nats_per_token": nats(result)}

    def held_out(names: Sequence[str], steps: int, rates: dict[str, float]) -> float:
        candidate = training(data, names, steps, rates=rates, probe="last")
        (measured,) = recorded(records, [candidate], scheduler, prepare)
        return -measured["nats_per_token"]

    def search_one(
        names: Sequence[str], steps: int, rates: dict[str, float], argument: str, values: Sequence[float]
    ) -> float:
        def measure(value: float) -> float:
            return held_out(names, steps, rates | {argument: value})

        found = best(search(values, measure))
        if found > values[0]:
            return found
        return best(search((found / 2**halvings for halvings in range(HALVINGS + 1)), measure))

    whole = EMBEDDED[data][-1]
    paper = {"rate": search_one((), whole, {}, "rate", RATES)}
    names, third = RECIPES["modern"], whole // 3
    modern = {"rate": RATES[1]}
    modern["muon_rate"] = search_one(names, third, modern, "muon_rate", MUON_RATES)
    modern["rate"] = search_one(names, third, modern, "rate", RATES)
    rates = {"paper": paper, "modern": modern}
    write_json(records.with_name("rates.json"), rates)
    return rates


def compared(data: str, rates: dict[str, dict[str, float]]) -> list[tuple[str, Job]]:
    """The jobs of the two recipes at every length, each with the name of its recipe."""
    whole = EMBEDDED[data][-1]
    lengths = [whole // length for length in LENGTHS if length <= 3]
    named = [("paper", training(data, (), steps, rates=rates["paper"])) for steps in lengths]
    return named + [("modern", branch) for branch in branches(data, rates["modern"]).values()]


def ablated(data: str, rates: dict[str, dict[str, float]]) -> list[tuple[str, Job]]:
    """The jobs that add one ingredient to a recipe or remove one from the modern one, each with a name.

    They train for a third of the steps.  Adam's rate is that of the recipe that is changed; but where Muon is removed,
    it is the rate of the paper's recipe.
    """
    steps, whole = EMBEDDED[data][-1] // 3, RECIPES["modern"]
    named: list[tuple[str, Job]] = []
    for name in whole:
        added = rates["paper"] | ({"muon_rate": rates["modern"]["muon_rate"]} if name == "muon" else {})
        named.append((f"paper + {name}", training(data, (name,), steps, rates=added)))
    for name in whole:
        rest = tuple(other for other in whole if other != name)
        rest_rates = rates["paper" if name == "muon" else "modern"]
        named.append((f"modern - {name}", training(data, rest, steps, rates=rest_rates)))
    for name in (other for other in INGREDIENTS if other not in whole):
        named.append((f"modern + {name}", training(data, (*whole, name), steps, rates=rates["modern"])))
    return named


def main(arguments: list[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0 for success, 1 if a run failed, 2 for bad input, 130 if interrupted.
    """
    parser = argparse.ArgumentParser("experiments.modern", description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", choices=tuple(EMBEDDED))
    parser.add_argument("--workdir", type=local_directory, required=True, help="directory of all runs and results")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time; default: the number of cores"
    )
    options = parser.parse_args(arguments)
    command = "python -m experiments.modern " + " ".join(arguments)
    jax.config.update("jax_platforms", "cpu")  # where the runs are trained
    return exit_status("experiments.modern", lambda: measure(options, command))


def measure(options: argparse.Namespace, command: str) -> None:
    """Runs what is missing: the searches of all data sets, then comparisons, ablations and timing.

    Args:
      options: the parsed command line.
      command: the command line as text, for the results.

    Raises:
      RunFailed: a run failed.
    """
    directory, workers = options.workdir, options.jobs
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    searching = Scheduler(directory / "search", (SEARCHING_SEED,), "validation", workers, environment)
    schedulers = [Scheduler(directory, (seed,), "test", workers, environment) for seed in SEEDS]
    facts = {"command": command, "seeds": SEEDS, "machine": machine()}
    results = directory / "results"
    rates = {data: searched_rates(searching, data, results / data / "search.json") for data in options.data}
    rows: dict[str, list[dict[str, Any]]] = {data: [] for data in options.data}
    for stage in (compared, ablated):
        for data in options.data:
            names, jobs = zip(*stage(data, rates[data]), strict=True)
            prepare = functools.partial(_measures, data)
            by_seed = [recorded(results / data / "runs.json", jobs, one, prepare) for one in schedulers]
            rows[data] += [_row(*one) for one in zip(names, jobs, zip(*by_seed, strict=True), strict=True)]
            _write_results(results / data, data, rows[data], facts)
    for data in options.data:
        _time(rows[data], data)
        _write_results(results / data, data, rows[data], facts)


def _measures(data: str) -> Callable[[Result], dict[str, Any]]:
    """Returns a function that measures a finished run."""
    nats = held_out_loss(data, EMBEDDED[data][0])
    return lambda result: {
        "nats_per_token": nats(result),
        "probe": probe_accuracy(result),
        "raw_pixels": raw_pixels(result),
    }


def _row(name: str, job: Job, by_seed: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table: a job with what was measured of it with each seed."""
    config = _config(job.arguments)
    measured = {key: [one[key] for one in by_seed] for key in ("nats_per_token", "probe", "raw_pixels")}
    rates = {
        "learning_rate": config.optimizer.learning_rate,
        "muon_learning_rate": config.optimizer.muon_learning_rate if config.optimizer.name == "muon" else None,
    }
    return {"recipe": name, "steps": config.steps, "arguments": job.arguments} | measured | rates


def _config(arguments: Sequence[str]) -> RunConfig:
    return RunConfig.from_dict(get_config(",".join(arguments)).to_dict())


def _time(rows: Sequence[dict[str, Any]], data: str) -> None:
    """Times a step of every recipe, and adds "images_per_second" and "speed" (1 for the paper's recipe) to the rows."""
    sides: dict[str, Side] = {}
    for row in rows:
        if row["recipe"] not in sides:
            config = _config(row["arguments"])
            shape = (config.data.batch_size, config.model.context)
            tokens_bt = np.random.default_rng(0).integers(0, config.model.vocabulary, shape).astype(np.int32)
            step, _ = training_step(config.model, tokens_bt, optimizer=config.optimizer)
            sides[row["recipe"]] = Side(
                lambda step=step: [step() for _ in range(STEPS_TIMED)], STEPS_TIMED * len(tokens_bt)
            )
    paper = sides.pop("paper")
    timed = compare(f"a step on {data}", "images/s", paper, sides, "", rounds=ROUNDS)
    speeds = {"paper": (timed[0].ours, 1.0)} | {one.peer_name: (one.peer, 1 / one.ratio) for one in timed}
    for row in rows:
        row["images_per_second"], row["speed"] = speeds[row["recipe"]]


def _write_results(directory: pathlib.Path, data: str, rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> None:
    """Writes results.json, table.md and, if the rows have times, figure.png."""
    write_json(directory / "results.json", {"title": TITLE, "data": data, **facts, "rows": rows})
    with atomic_write(directory / "table.md") as partial:
        partial.write_text(table(data, rows))
    if all("speed" in row for row in rows):
        draw(directory / "figure.png", data, rows)


def goal(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the paper's recipe at all steps, whose loss is the goal of the others."""
    return max((row for row in rows if row["recipe"] == "paper"), key=lambda row: row["steps"])


def table(data: str, rows: Sequence[dict[str, Any]]) -> str:
    """Formats the rows as Markdown: means ± standard deviations over the seeds; wall time relative to the goal's."""
    whole = goal(rows)
    to_beat = np.mean(whole["nats_per_token"])
    lines = [
        f"# {TITLE}: {data}",
        "",
        f"{len(whole['nats_per_token'])} seeds each. Goal: {to_beat:.4f} nats/token, the paper's recipe after "
        f"{whole['steps']:,} steps. A logistic regression on raw pixels gets {np.mean(whole['raw_pixels']):.1f} %.",
        "",
        "| recipe | steps | held-out nats/token | reaches the goal | probe, % | images/s | wall time |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        speed = row.get("speed")
        wall = f"{row['steps'] / whole['steps'] / speed:.2f}" if speed else ""
        images = f"{row['images_per_second']:.0f}" if speed else ""
        reached = "yes" if np.mean(row["nats_per_token"]) <= to_beat else "no"
        nats, probe = (_mean(row[name], digits) for name, digits in MEASURED.items())
        lines.append(f"| {row['recipe']} | {row['steps']:,} | {nats} | {reached} | {probe} | {images} | {wall} |")
    return "\n".join([*lines, *_changes(rows)]) + "\n"


def _changes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of a second table, with the differences that each ablation makes; none without ablations."""
    whole = {(row["recipe"], row["steps"]): row for row in rows if row["recipe"] in RECIPES}
    ablations = [row for row in rows if row["recipe"] not in RECIPES]
    if not ablations:
        return []
    lines = [
        "",
        "What each change makes of its recipe after as many steps: differences, seed by seed, means ± standard errors.",
        "",
        "| recipe | held-out nats/token | probe, points | speed |",
        "|---|---|---|---|",
    ]
    for row in ablations:
        base = whole[row["recipe"].split()[0], row["steps"]]
        nats, probe = (_difference(row[name], base[name], digits) for name, digits in MEASURED.items())
        speed = f"{row['speed'] / base['speed']:.2f}" if "speed" in row else ""
        lines.append(f"| {row['recipe']} | {nats} | {probe} | {speed} |")
    return lines


def _difference(values: Sequence[float], others: Sequence[float], digits: int) -> str:
    differences = np.subtract(values, others)
    return f"{differences.mean():+.{digits}f} ± {differences.std(ddof=1) / np.sqrt(len(differences)):.{digits}f}"


def _mean(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"


def draw(path: pathlib.Path, data: str, rows: Sequence[dict[str, Any]]) -> None:
    """Draws the held-out loss of both recipes against the time that training takes."""
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for row in rows:
        if row["recipe"] in RECIPES:
            minutes = row["steps"] * _config(row["arguments"]).data.batch_size / row["images_per_second"] / 60
            point = (minutes, np.mean(row["nats_per_token"]), np.std(row["nats_per_token"], ddof=1))
            curves.setdefault(row["recipe"], []).append(point)
    curves = {name: sorted(points) for name, points in curves.items()}
    plot_curves(path, f"{TITLE}: {data}", "training time (minutes)", "held-out loss (nats per token)", curves)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
