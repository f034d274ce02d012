"""Scaling laws of next-pixel prediction: which size is best for a budget of FLOPs, and how both grow.

    python -m experiments.scaling --scale=miniature --workdir=runs/scaling
    python -m experiments.scaling --scale=paper --workdir=runs/scaling --list
    python -m igpt_jax train --config=experiments/scaling.py:size=3,flops=1e12 --workdir=runs/one

For each budget, models of six sizes train until the budget is spent.  The best size of a budget is the minimum of a
parabola (IsoFLOP profiles, Hoffmann et al. 2022, arXiv:2203.15556; for pixels, Yan et al. 2025, arXiv:2511.08704).
"miniature" has squares of photographs, of which there are always new ones, and takes a few hours on two CPU cores.
"paper" has ImageNet at 32x32.

1. The learning rate is searched for three sizes, each at a budget that suits it.  A power law of the width gives the
   rates of all other runs.
2. All budgets and sizes run, for both recipes; and for the paper's recipe at a second resolution.  After each of the
   three, its laws are fitted and written to results/.
3. The laws predict the loss of one run of a larger budget.  The prediction is written to prediction-*.json before this
   run starts.  Then that run is made.

`python -m igpt_jax plan --flops=1e20 --law=FILE` takes the law-*.json of results/.

The best size is found for three metrics: held-out loss, the probe's accuracy, and the Fréchet distance of samples.
In the miniature, the loss and the distance are those to new squares of the training photographs, which
held_out_loss.py explains, while the probe is measured on other parts of the photographs.

Every run that was measured is in results/search.json or results/runs.json, and is not made again.  To go on with
another machine's results, copy its results/ into the workdir first.

As a config, its arguments are size (a number in the list of sizes), flops (of forward and backward passes), resolution,
recipe=paper|modern, scale, and rate, the peak learning rate.  In the modern recipe, rate is Adam's; Muon's is 40 times
as high, which is the ratio of the rates that modern.py found on digits.
"""

import argparse
import dataclasses
import itertools
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections

from experiments.arguments import local_directory, read_arguments
from experiments.benchmark.measure import machine
from experiments.held_out_loss import held_out_loss
from experiments.recipe import RECIPES, add_ingredients
from experiments.records import recorded
from experiments.runs import Job, Result, nats_per_token, probe_accuracy, raw_pixels, untrained, work_directory
from experiments.scaling_law import (
    Optimum,
    Point,
    PowerLaw,
    bootstrap,
    fit_surface,
    lowest,
    optima,
    optimal_growth,
    power_law,
    tokens_exponent,
)
from experiments.scaling_results import write_results
from experiments.scaling_samples import frechet_distance
from experiments.scheduler import Scheduler, exit_status, worker_count
from experiments.tables import write_json
from igpt_jax.config import ModelConfig, default_config
from igpt_jax.errors import InputError
from igpt_jax.model.flops import CHIPS, matmul_parameters, training_flops


@dataclasses.dataclass(frozen=True)
class Scale:
    """The sizes, budgets and data of one scale."""

    data: str
    colors: int
    images: int  # in an epoch
    batch_size: int
    resolutions: tuple[int, ...]  # the second one has the paper's recipe alone
    shapes: tuple[tuple[int, int, int], ...]  # layers, width, heads, from small to large
    budgets: tuple[float, ...]  # FLOPs of forward and backward passes
    smallest: tuple[int, ...]  # of each budget, the first of its six sizes
    held_out_budget: float
    rates: dict[str, tuple[float, ...]]  # to try, by recipe


SIZES_PER_BUDGET = 6
SCALES = {
    "miniature": Scale(
        data="photographs",
        colors=64,
        images=4096,
        batch_size=16,
        resolutions=(12, 8),
        shapes=(
            *((1, 8, 1), (1, 12, 1), (1, 16, 1), (2, 16, 1), (2, 24, 2)),
            *((3, 32, 2), (3, 40, 2), (4, 48, 4), (4, 64, 4), (5, 80, 4)),
        ),
        budgets=(2e11, 6e11, 2e12, 6e12),
        smallest=(0, 1, 3, 3),
        held_out_budget=2e13,
        rates={
            "paper": (3e-3, 6e-3, 12e-3, 24e-3),
            "modern": (0.8e-3, 1.5e-3, 3e-3, 6e-3, 12e-3),
        },
    ),
    "paper": Scale(
        data="imagenet2012",
        colors=512,
        images=1_229_934,
        batch_size=128,
        resolutions=(32, 16),
        shapes=(
            *((6, 192, 3), (8, 256, 4), (12, 384, 6), (16, 512, 8), (24, 512, 8)),
            *((24, 768, 12), (24, 1024, 8), (36, 1024, 8), (36, 1280, 10), (48, 1536, 16)),
        ),
        budgets=(1e18, 3e18, 1e19, 3e19, 1e20),
        smallest=(0, 1, 2, 3, 4),
        held_out_budget=3e20,
        rates={"paper": (1e-3, 2e-3, 4e-3, 8e-3), "modern": (0.2e-3, 0.4e-3, 0.8e-3, 1.5e-3)},
    ),
}
SLICES = (("v5e:4x4", "TPU v5 lite", 16), ("v5p:2x2x4", "TPU v5", 16), ("v6e:8x8", "TPU v6 lite", 64))
SEARCHED_CELLS = ((0, 3), (1, 4), (2, 5))  # budgets and sizes whose rates are searched: where the best sizes may lie
FEATURES_SIZE = 7  # of the network whose features compare samples
SEED, SEARCHING_SEED, FEATURES_SEED = 0, 10, 20
MUON_RATE = 40  # Muon's learning rate as a multiple of Adam's
WARMUP = 0.05  # fraction of the steps


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """One run, with the arguments above.

    Raises:
      InputError: an argument is not known, or the budget is too small for one step.
    """
    chosen = read_arguments(
        arguments,
        scale=tuple(SCALES),
        size=3,
        flops=1e12,
        resolution=0,
        recipe=tuple(RECIPES),
        rate=3e-3,
    )
    scale = SCALES[chosen["scale"]]
    if not 0 <= chosen["size"] < len(scale.shapes):
        raise InputError(f"size={chosen['size']} is not in the list of sizes; give 0 to {len(scale.shapes) - 1}")
    resolution = chosen["resolution"] or scale.resolutions[0]
    config = default_config()
    layers, width, heads = scale.shapes[chosen["size"]]
    config.model.update({"layers": layers, "width": width, "heads": heads})
    config.model.resolution, config.model.vocabulary = resolution, scale.colors
    config.data.name, config.data.batch_size = scale.data, scale.batch_size
    add_ingredients(config, RECIPES[chosen["recipe"]])
    config.steps = _steps(model_of(scale, chosen["size"], resolution), chosen["flops"], scale.batch_size)
    config.optimizer.learning_rate = chosen["rate"]
    if config.optimizer.name == "muon":
        config.optimizer.muon_learning_rate = MUON_RATE * chosen["rate"]
    config.optimizer.warmup_epochs = WARMUP * config.steps * scale.batch_size / scale.images
    config.evaluate.probe.layers = (layers // 2, layers)
    config.checkpoint_every = max(1, config.steps)
    if chosen["scale"] == "miniature":
        config.model.unroll = layers
        config.evaluate.batch_size = 64
        config.log_every = max(1, config.steps // 20)
        config.evaluate.probe.l2 = (1e-4,)  # one strength for all runs, to save time
    else:
        config.model.dtype, config.model.remat = "bfloat16", "auto"
        config.checkpoint_every = 10_000
    return config


def model_of(scale: Scale, size: int, resolution: int) -> ModelConfig:
    """The shape of a model; both recipes have the same FLOPs and parameters in their matmuls."""
    layers, width, heads = scale.shapes[size]
    return ModelConfig(layers=layers, width=width, heads=heads, resolution=resolution, vocabulary=scale.colors)


def _steps(model: ModelConfig, flops: float, batch_size: int) -> int:
    steps = round(flops / training_flops(model, batch_size))
    if steps < 1:
        raise InputError(f"flops={flops:g} are not enough for one step of this size; give more, or a smaller size")
    return steps


@dataclasses.dataclass(frozen=True)
class Run:
    """One cell of the grid."""

    scale: str
    recipe: str
    resolution: int
    flops: float
    size: int
    rate: float

    @property
    def model(self) -> ModelConfig:
        """Its shape."""
        return model_of(SCALES[self.scale], self.size, self.resolution)

    @property
    def job(self) -> Job:
        """The job that trains it."""
        arguments = {"scale": self.scale, "size": self.size, "flops": f"{self.flops:g}", "recipe": self.recipe}
        arguments |= {"resolution": self.resolution, "rate": f"{self.rate:.3g}"}
        name = f"{self.recipe}-{self.resolution}-{self.flops:g}-size{self.size}"
        return Job(name, "train", "scaling.py", tuple(f"{key}={value}" for key, value in arguments.items()))

    @property
    def tokens(self) -> float:
        """How many tokens it sees."""
        scale = SCALES[self.scale]
        return _steps(self.model, self.flops, scale.batch_size) * scale.batch_size * self.model.context

    def point(self, value: float) -> Point:
        """The run with a value that was measured."""
        return Point(self.flops, matmul_parameters(self.model), self.tokens, value)


def grid(name: str, recipe: str, resolution: int, rule: PowerLaw) -> list[Run]:
    """All runs of one recipe at one resolution."""
    scale = SCALES[name]
    return [
        Run(name, recipe, resolution, flops, size, rule(scale.shapes[size][1]))
        for flops, smallest in zip(scale.budgets, scale.smallest, strict=True)
        for size in range(smallest, smallest + SIZES_PER_BUDGET)
    ]


def held_out_run(name: str, recipe: str, optima: Sequence[Optimum], rule: PowerLaw) -> Run:
    """The run of the larger budget: of the sizes there are, the one that the law says is best."""
    scale, resolution = SCALES[name], SCALES[name].resolutions[0]
    wanted, _ = optimal_growth(optima)
    target = math.log(wanted(scale.held_out_budget))
    size = min(
        range(len(scale.shapes)),
        key=lambda size: abs(math.log(matmul_parameters(model_of(scale, size, resolution))) - target),
    )
    return Run(name, recipe, resolution, scale.held_out_budget, size, rule(scale.shapes[size][1]))


def main(arguments: list[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0 for success, 1 if a run failed, 2 for bad input, 130 if interrupted.
    """
    parser = argparse.ArgumentParser("experiments.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--scale", choices=tuple(SCALES), required=True)
    parser.add_argument("--workdir", type=local_directory, required=True, help="directory of all runs and results")
    parser.add_argument(
        "--jobs", type=int, help="runs at a time; default: the number of cores for miniature, 1 for paper"
    )
    parser.add_argument("--list", action="store_true", help="print commands and costs, and run nothing")
    options = parser.parse_args(arguments)
    if options.list:
        print(listing(options.scale, options.workdir))
        return 0
    command = "python -m experiments.scaling " + " ".join(arguments)
    return exit_status("experiments.scaling", lambda: measure(options, command))


def listing(name: str, workdir: pathlib.Path) -> str:
    """The commands of the grid at a rate to be searched first, and what the grid costs on TPU slices."""
    scale = SCALES[name]
    lines, flops = [], 0.0
    for recipe in RECIPES:
        for run in grid(name, recipe, scale.resolutions[0], PowerLaw(scale.rates[recipe][1], 0.0)):
            config, *flags = run.job.flags(workdir, SEED)
            lines.append(" ".join(["python -m igpt_jax train", config, *flags, f"--workdir={workdir / run.job.name}"]))
            flops += run.flops
    lines.append(f"# {len(lines)} runs, {flops:.2g} FLOPs; hours at an MFU of 50 %:")
    for topology, chip, chips in SLICES:
        lines.append(f"# {topology}: {flops / (0.5 * chips * CHIPS[chip].flops) / 3600:,.1f}")
    return "\n".join(lines)


def measure(options: argparse.Namespace, command: str) -> None:
    """Runs what is missing, fits the laws, and writes the results.

    Raises:
      RunFailed: a run failed.
    """
    name, directory = options.scale, options.workdir
    scale = SCALES[name]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    if name == "miniature":
        environment["JAX_PLATFORMS"] = "cpu"
    jobs = worker_count(options.jobs, name)
    searching = Scheduler(directory / "search", (SEARCHING_SEED,), "validation", jobs, environment)
    featuring = Scheduler(directory / "features", (FEATURES_SEED,), "test", jobs, environment)
    scheduler = Scheduler(directory, (SEED,), "test", jobs, environment)
    results = directory / "results"
    facts = {"command": command, "seed": SEED, "machine": machine(), "scale": name}
    rules = searched_rules(name, searching, results / "search.json")

    def measured(runs: Sequence[Run]) -> list[dict[str, Any]]:
        features = _features_job(name, runs[0].resolution, rules["paper"])

        def prepare() -> Callable[[Result], dict[str, Any]]:
            featuring.make_all([features])
            return _measures(scale, runs[0].resolution, work_directory(features, featuring.directory, FEATURES_SEED))

        return recorded(results / "runs.json", [run.job for run in runs], scheduler, prepare)

    settings = [(recipe, scale.resolutions[0]) for recipe in RECIPES]
    settings += [("paper", resolution) for resolution in scale.resolutions[1:]]
    fitted, larger, predictions = {}, [], []
    for recipe, resolution in settings:
        runs = grid(name, recipe, resolution, rules[recipe])
        fitted[recipe, resolution] = _law(runs, measured(runs))
        write_results(results, facts, fitted, {})
    for recipe in RECIPES:
        law = fitted[recipe, scale.resolutions[0]]
        run = held_out_run(name, recipe, law["optima"], rules[recipe])
        prediction = results / f"prediction-{recipe}.json"
        if not prediction.exists():  # it is never written again
            predicted = law["surface"](matmul_parameters(run.model), run.tokens)
            write_json(prediction, {"run": dataclasses.asdict(run), "nats_per_token": predicted})
        larger.append(run)
        predictions.append(json.loads(prediction.read_text())["nats_per_token"])
    held_out = {
        run.recipe: {"size": run.size, "predicted": predicted, "reached": values["nats_per_token"]}
        for run, predicted, values in zip(larger, predictions, measured(larger), strict=True)
    }
    write_results(results, facts, fitted, held_out)


def searched_rules(name: str, scheduler: Scheduler, records: pathlib.Path) -> dict[str, PowerLaw]:
    """Tries all rates on three cells of the grid, and fits a rule for each recipe to the best ones.

    The searched runs are kept in `records`, the rules beside it in rates.json.
    """
    scale = SCALES[name]
    resolution = scale.resolutions[0]
    jobs = {
        (recipe, size, rate): dataclasses.replace(job, name=f"{job.name}-{rate:g}")
        for recipe, (budget, size) in itertools.product(RECIPES, SEARCHED_CELLS)
        for rate in scale.rates[recipe]
        for job in [Run(name, recipe, resolution, scale.budgets[budget], size, rate).job]
    }

    def prepare() -> Callable[[Result], dict[str, Any]]:
        nats = held_out_loss(scale.data, resolution, searching=True)
        return lambda result: {"nats_per_token": nats(result)}

    measured = recorded(records, list(jobs.values()), scheduler, prepare)
    nats = {cell: values["nats_per_token"] for cell, values in zip(jobs, measured, strict=True)}
    rules = {}
    for recipe in RECIPES:
        rates, sizes = scale.rates[recipe], [size for _, size in SEARCHED_CELLS]
        best = [lowest(rates, [nats[recipe, size, rate] for rate in rates]) for size in sizes]
        rules[recipe] = power_law([scale.shapes[size][1] for size in sizes], best)
    write_json(records.with_name("rates.json"), {recipe: dataclasses.asdict(rule) for recipe, rule in rules.items()})
    return rules


def _features_job(name: str, resolution: int, rule: PowerLaw) -> Job:
    """Trains the network whose features compare samples at a resolution."""
    scale = SCALES[name]
    rate = rule(scale.shapes[FEATURES_SIZE][1])
    return Run(name, "paper", resolution, scale.budgets[-1], FEATURES_SIZE, rate).job


def _measures(scale: Scale, resolution: int, features: pathlib.Path) -> Callable[[Result], dict[str, Any]]:
    """Returns a function that measures a finished run of the grid."""
    nats = held_out_loss(scale.data, resolution)
    distance = frechet_distance(features, scale.data, resolution)
    return lambda result: {
        "nats_per_token": nats(result),
        "nats_per_token_of_test_images": nats_per_token(result),
        "probe_accuracy": probe_accuracy(result),
        "probe_of_raw_pixels": raw_pixels(result),
        "probe_of_the_untrained_network": untrained(result),
        **distance(work_directory(result.job, result.directory, result.seed)),
    }


def _law(runs: Sequence[Run], measured: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The measurements of one recipe's runs, and everything that is fitted to them."""

    def points(read: Callable[[dict[str, Any]], float]) -> list[Point]:
        return [run.point(read(values)) for run, values in zip(runs, measured, strict=True)]

    losses = points(lambda values: values["nats_per_token"])
    errors = points(lambda values: 100 - values["probe_accuracy"])
    distances = points(lambda values: values["frechet_distance"])
    best = optima(losses)
    parameters_law, tokens_law = optimal_growth(best)
    return {
        "points": losses,
        "optima": best,
        "parameters_coefficient": parameters_law.coefficient,
        "parameters_exponent": parameters_law.exponent,
        "tokens_exponent": tokens_law.exponent,
        "intervals": bootstrap(losses, seed=SEED),
        "surface": fit_surface(losses),
        "probe_errors": errors,
        "probe_optima": (probe_optima := optima(errors)),
        "probe_tokens_exponent": tokens_exponent(probe_optima),
        "frechet_distances": distances,
        "frechet_optima": (frechet_optima := optima(distances)),
        "frechet_tokens_exponent": tokens_exponent(frechet_optima),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
