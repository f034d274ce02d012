"""The grid of scaling runs, and the way from finished runs to laws."""

import json
import math

import jax
import pytest

from experiments import scaling
from experiments.scaling import SCALES, get_config, grid, main
from experiments.scaling_law import PowerLaw, Surface, power_law
from experiments.scheduler import Scheduler
from igpt_jax.config import ParallelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.model.flops import matmul_parameters, training_flops
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.state import abstract_params

LAW = Surface(irreducible=1.2, a=30.0, b=3000.0, alpha=0.4, beta=0.6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_every_run_spends_its_budget(scale, recipe):
    runs = grid(scale, recipe, SCALES[scale].resolutions[0], PowerLaw(0.01, -0.3))
    assert len(runs) == 6 * len(SCALES[scale].budgets)
    for run in runs:
        config = RunConfig.from_dict(get_config(",".join(run.job.arguments)).to_dict())
        step = training_flops(config.model, config.data.batch_size)
        assert abs(config.steps * step - run.flops) <= step / 2
        assert config.steps >= 100
        assert run.tokens == config.steps * config.data.batch_size * config.model.context
        assert config.optimizer.learning_rate == pytest.approx(run.rate, rel=1e-2)


@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_the_parameters_are_those_of_the_network_without_embeddings_and_gains(recipe):
    model = RunConfig.from_dict(get_config(f"size=4,recipe={recipe}").to_dict()).model
    shapes = jax.tree.leaves_with_path(abstract_params(ImageGPT(model), make_mesh(ParallelConfig(), jax.devices()[:1])))
    matrices = sum(
        leaf.size
        for path, leaf in shapes
        if "embedding" not in jax.tree_util.keystr(path) and "norm" not in jax.tree_util.keystr(path) and leaf.ndim > 1
    )
    assert matmul_parameters(model) == matrices


def test_a_power_law_of_rates_is_inverted():
    rule = power_law((16, 32, 48), [0.2 * width**-0.7 for width in (16, 32, 48)])
    assert rule(64) == pytest.approx(0.2 * 64**-0.7)


@pytest.mark.parametrize(
    ("arguments", "message"), [("size=10", "give 0 to 9"), ("size=8,flops=1e6", "not enough for one step")]
)
def test_what_cannot_run_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        get_config(arguments)


def record(records, run, nats, name=None, seed=scaling.SEED):
    """Adds what is recorded of a measured run."""
    records[f"{name or run.job.name}-seed{seed}"] = {
        "nats_per_token": nats,
        "probe_accuracy": 90 - 20 * (nats - 1),
        "frechet_distance": 5 * nats,
    }


@pytest.fixture
def measured(tmp_path):
    """A workdir with records of runs whose losses follow `LAW`; in the search, the second rate is the best."""
    scale = SCALES["miniature"]
    runs, searched = {}, {}
    settings = [(recipe, scale.resolutions[0]) for recipe in ("paper", "modern")] + [("paper", scale.resolutions[1])]
    for recipe, resolution in settings:
        for run in grid("miniature", recipe, resolution, PowerLaw(1e-3, 0.0)):
            record(runs, run, LAW(matmul_parameters(run.model), run.tokens))
    for recipe in ("paper", "modern"):
        for budget, size in scaling.SEARCHED_CELLS:
            for rate in scale.rates[recipe]:
                run = scaling.Run("miniature", recipe, scale.resolutions[0], scale.budgets[budget], size, rate)
                nats = 2 + math.log(rate / scale.rates[recipe][1]) ** 2
                record(searched, run, nats, f"{run.job.name}-{rate:g}", scaling.SEARCHING_SEED)
        for size in range(len(scale.shapes)):
            run = scaling.Run("miniature", recipe, scale.resolutions[0], scale.held_out_budget, size, 1e-3)
            record(runs, run, LAW(matmul_parameters(run.model), run.tokens))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "runs.json").write_text(json.dumps(runs))
    (tmp_path / "results" / "search.json").write_text(json.dumps(searched))
    return tmp_path


def test_finished_runs_become_the_law_that_they_follow_and_a_prediction_is_never_written_again(measured):
    predicted = {"run": {}, "nats_per_token": 9.0}
    (measured / "results" / "prediction-modern.json").write_text(json.dumps(predicted))
    assert main(["--scale=miniature", f"--workdir={measured}", "--jobs=1"]) == 0
    results = json.loads((measured / "results" / "results.json").read_text())
    assert len(results["laws"]) == 3
    for law in results["laws"].values():
        assert law["surface"]["irreducible"] == pytest.approx(LAW.irreducible, rel=0.02)
        assert law["surface"]["alpha"] == pytest.approx(LAW.alpha, rel=0.05)
        assert law["parameters_exponent"] == pytest.approx(LAW.parameters_exponent, abs=0.06)
    paper, modern = (results["held_out"][recipe] for recipe in ("paper", "modern"))
    assert paper["predicted"] == pytest.approx(paper["reached"], rel=2e-3)
    assert modern["predicted"] == 9.0
    assert {"isoflops-paper-12.png", "isoflops-modern-12.png", "optima.png", "surface-paper-8.png"} <= {
        path.name for path in (measured / "results").glob("*.png")
    }
    assert "inside" in (measured / "results" / "table.md").read_text()


def test_two_sizes_of_one_width_are_searched_apart(tmp_path):
    scale = SCALES["paper"]
    wanted, searched = {3: 1, 4: 2, 5: 1}, {}  # by size: which rate is best; sizes 3 and 4 are equally wide
    for recipe in ("paper", "modern"):
        for budget, size in scaling.SEARCHED_CELLS:
            for rate in scale.rates[recipe]:
                run = scaling.Run("paper", recipe, scale.resolutions[0], scale.budgets[budget], size, rate)
                nats = 3 - 0.5 * budget + math.log(rate / scale.rates[recipe][wanted[size]]) ** 2
                record(searched, run, nats, f"{run.job.name}-{rate:g}", scaling.SEARCHING_SEED)
    (tmp_path / "search.json").write_text(json.dumps(searched))
    scheduler = Scheduler(tmp_path, (scaling.SEARCHING_SEED,), "validation", 1, {})
    for recipe, rule in scaling.searched_rules("paper", scheduler, tmp_path / "search.json").items():
        best = [scale.rates[recipe][which] for which in wanted.values()]
        expected = power_law([scale.shapes[size][1] for size in wanted], best)
        assert rule.exponent == pytest.approx(expected.exponent)
        assert rule(512) == pytest.approx(expected(512))


def test_the_paper_scale_is_listed_with_its_costs(capsys):
    assert main(["--scale=paper", "--workdir=runs/scaling", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("python -m igpt_jax train") for line in lines) == 60
    assert lines[-4].startswith("# 60 runs")
