"""The comparison of recipes: the search of rates, and what an ablation changes."""

import json
import math

import pytest

from experiments import modern
from experiments.recipe import INGREDIENTS, RECIPES
from experiments.scheduler import Scheduler

RATES = {
    "paper": {"rate": 0.006},
    "modern": {"rate": 0.00075, "muon_rate": 0.06},
}  # the latter below all rates tried first


def test_the_search_finds_the_rates_with_the_lowest_held_out_loss_among_the_runs_that_are_kept(tmp_path):
    def loss(rates, wanted):
        return 1 + sum(math.log(rates[name] / wanted[name]) ** 2 for name in wanted)

    records = {}
    for rate in (*modern.RATES, *(modern.RATES[0] / 2**i for i in range(1, modern.HALVINGS + 1))):
        job = modern.training("digits", (), 1500, rates={"rate": rate}, probe="last")
        records[f"{job.name}-seed{modern.SEARCHING_SEED}"] = {"nats_per_token": loss({"rate": rate}, RATES["paper"])}
        for muon_rate in modern.MUON_RATES:
            rates = {"rate": rate, "muon_rate": muon_rate}
            job = modern.training("digits", RECIPES["modern"], 500, rates=rates, probe="last")
            records[f"{job.name}-seed{modern.SEARCHING_SEED}"] = {"nats_per_token": loss(rates, RATES["modern"])}
    path = tmp_path / "search.json"
    path.write_text(json.dumps(records))
    scheduler = Scheduler(tmp_path, (modern.SEARCHING_SEED,), "validation", 1, {})
    assert modern.searched_rates(scheduler, "digits", path) == RATES
    assert json.loads((tmp_path / "rates.json").read_text()) == RATES


def test_an_ablation_changes_the_options_of_one_ingredient_and_the_rates_alone():
    third = modern.EMBEDDED["digits"][-1] // 3
    rows = dict(modern.ablated("digits", RATES))
    assert len(rows) == len(RECIPES["modern"]) + len(INGREDIENTS)
    for name, job in rows.items():
        recipe, _, ingredient = name.split(" ")
        whole = modern.training("digits", RECIPES[recipe], third, rates=RATES[recipe])
        options, others = (flat(modern.get_config(",".join(one.arguments)).to_dict()) for one in (job, whole))
        changed = {key for key in options if options[key] != others[key]}
        rates = {"optimizer.learning_rate", "optimizer.muon_learning_rate"}
        assert changed - rates == set(INGREDIENTS[ingredient]) - rates


def flat(options, prefix=""):
    """The options by their dotted names."""
    named = {}
    for key, value in options.items():
        named |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return named


def row(recipe, steps, nats, probe=(90.0, 90.0, 90.0), speed=1.0):
    return {
        "recipe": recipe,
        "steps": steps,
        "nats_per_token": nats,
        "probe": probe,
        "raw_pixels": [36.0] * 3,
        "images_per_second": 100.0,
        "speed": speed,
    }


@pytest.mark.parametrize(("nats", "reached"), [(0.58, "yes"), (0.6, "no")])
def test_the_table_says_whether_a_recipe_reaches_the_loss_of_the_paper_s_after_all_its_steps(nats, reached):
    rows = [row("paper", 500, [0.55] * 3), row("paper", 1500, [0.59] * 3), row("modern", 500, [nats] * 3, speed=0.8)]
    last = modern.table("digits", rows).splitlines()[-1]
    assert f"| {reached} |" in last
    assert last.endswith("| 0.42 |")  # a third of the steps, each 1 / 0.8 as long


def test_the_table_compares_an_ablation_with_its_recipe_after_as_many_steps_seed_by_seed():
    rows = [
        row("paper", 1500, [0.5] * 3),
        row("modern", 500, [0.6, 0.7, 0.8], [80.0, 70.0, 60.0], speed=0.8),
        row("modern", 1500, [9.0] * 3),
        row("modern - wsd", 500, [0.61, 0.71, 0.84], [79.0, 70.0, 58.0], speed=1.0),
    ]
    last = modern.table("digits", rows).splitlines()[-1]
    assert last == "| modern - wsd | +0.0200 ± 0.0100 | -1.0 ± 0.6 | 1.25 |"  # of 0.01, 0.01, 0.04 and -1, 0, -2
