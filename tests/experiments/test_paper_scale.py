"""The paper's own scale: every config of every table can be made, and its schedule is the paper's."""

import importlib
import json

import jax
import numpy as np
import pytest

import igpt_jax as ig
from experiments import paper
from experiments.reproduce import table_modules
from experiments.runs import in_order, work_directory
from igpt_jax.config import DataConfig, ObjectiveConfig, OptimizerConfig, ParallelConfig, RunConfig
from igpt_jax.parallel.mesh import batch_sharding, make_mesh
from igpt_jax.train.compile import compile_train_step
from igpt_jax.train.optimizer import adam, learning_rate_schedule
from igpt_jax.train.state import abstract_params, init_state
from igpt_jax.train.workdir_lock import write_config

TRAINING_IMAGES = 1_281_167  # of ImageNet
WIDE = np.linspace(-1, 1, 1536, dtype=np.float32).reshape(512, 3)
SHAPES = {"layers": "layers", "d_model": "width", "n_head": "heads"}


def config_of(run, directory):
    """The config that the command line of a run would get."""
    file, _, arguments = run.flags(directory, 0)[0].removeprefix("--config=experiments/").partition(":")
    module = importlib.import_module(f"experiments.{file.removesuffix('.py')}")
    return RunConfig.from_dict(module.get_config(arguments).to_dict())


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """By name: the config of every run of all tables, each made beside the workdirs of those it needs."""
    directory, found = tmp_path_factory.mktemp("runs"), {}
    wanted = [row.job for module in table_modules("all").values() for row in module.rows("paper") if row.job]
    for run in in_order(wanted):
        found[run.name] = run, config_of(run, directory)
        workdir = work_directory(run, directory, 0)
        (workdir / "checkpoints").mkdir(parents=True)
        write_config(workdir, found[run.name][1], ig.Palette(WIDE))
        (workdir / "evaluation.json").write_text(json.dumps({"probe": {"best_layer": 20}}))
    return found


def test_every_run_has_the_papers_shape(configs):
    printed = {
        (entry["method"], entry["setting"], entry["metric"]): entry["value"]
        for entry in paper.entries("Section 3.3 text / Table 2 / README")
    }
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    sizes = {ig.SIZES[size].width: f"iGPT-{size.upper()}" for size in ("s", "m", "l")}
    assert len(configs) > 30
    shapes = {config.model for _, config in configs.values()}
    assert {sizes[model.width] for model in shapes} == set(sizes.values())
    for model in shapes:
        name = sizes[model.width]
        for metric, field in SHAPES.items():
            assert getattr(model, field) == printed[name, "architecture", metric]
        count = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(ig.ImageGPT(model), mesh)))
        positions, head = (model.context - 1024) * model.width, model.classes * model.width
        tied = 512 * model.width if getattr(model, "tied_head", False) else 0
        millions = (count - positions - head + tied) / 1e6
        assert int(millions) == printed[name, "architecture", "params_M"]


def test_every_pretraining_run_has_the_papers_schedule(configs):
    rates, seen = paper.learning_rates(), set()
    for name, (run, config) in configs.items():
        if run.config != "table5_pretrain.py":
            continue
        given = dict(argument.split("=") for argument in run.arguments)
        key = given["size"], int(given["resolution"]), given["objective"]
        seen.add(key)
        assert config.optimizer.learning_rate == rates[key]
        assert (config.steps, config.data.batch_size, config.optimizer.warmup_epochs) == (1_000_000, 128, 1.0)
        assert (config.optimizer.b1, config.optimizer.b2) == (0.9, 0.95)
        assert config.data.fold_validation, name  # the paper's last runs train on the held-out images
        schedule = learning_rate_schedule(config.optimizer, steps=1_000_000, steps_per_epoch=TRAINING_IMAGES / 128)
        assert float(schedule(10_009)) == pytest.approx(rates[key])
        assert float(schedule(10_009 // 2)) == pytest.approx(rates[key] / 2, rel=1e-3)
        assert float(schedule(1_000_000)) == pytest.approx(0, abs=1e-9)
    assert seen == {key for key in rates if key[0] != "xl"}  # XL's data are private


def test_the_mask_rates_are_those_that_the_paper_tried(configs):
    rates = {config.objective.mask_rate for run, config in configs.values() if run.config == "ablations.py"}
    assert rates == {0.15, 0.2, 0.25, 0.3, 0.35}  # 0.15: of autoregressive ones, which have no masks


def test_every_probe_is_the_papers(configs):
    for run, config in configs.values():
        if run.command != "evaluate":
            continue
        probe = config.evaluate.probe
        assert config.initialize_from
        assert probe.augmented_epochs == 0
        assert config.evaluate.votes == 5
        if config.data.name == "imagenet2012":
            assert (probe.solver, probe.steps, probe.rates[:3]) == ("sgd", 1_000_000, (30.0, 10.0, 3.0))
            assert probe.concatenate == 5
        else:
            assert probe.solver == "lbfgs"
        if config.data.name == "cifar10":
            assert probe.labels_per_class == (4, 25, 400)
            assert probe.subsets == 5


def test_every_fine_tuning_is_the_papers(configs):
    rates = paper.learning_rates()
    tuned = {name: found for name, found in configs.items() if found[0].config == "table3_finetune.py"}
    for name, (run, config) in tuned.items():
        assert config.objective.class_weight == 1
        assert config.objective.generation_weight == (0 if "class-only" in name or "scratch" in name else 1)
        assert (config.optimizer.schedule, config.optimizer.b2, config.data.batch_size) == ("constant", 0.95, 128)
        assert (config.keep_best, config.evaluate.split) == ("validation/accuracy", "validation")
        assert not config.data.fold_validation
        cifar = config.data.name.startswith("cifar")
        assert config.data.augmentation == ("pad_crop_flip" if cifar else "auto")
        assert config.model.head_layer == (20 if "inner" in name else -1)
        key = "l", config.model.resolution, config.objective.name
        if "scratch" in name:
            assert not config.initialize_from
            assert run.rates[0] == rates[key]
        else:
            assert run.rates[1] == pytest.approx(rates[key] / 10)  # "often an order of magnitude smaller"
    assert {config.model.resolution for _, config in tuned.values()} == {32, 48}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ar", "bert", "joint"])
def test_a_step_of_the_papers_s_runs(objective):
    """The loss of a fresh model is that of a uniform guess, and a step of Adam lowers it."""
    config = RunConfig.from_dict(
        {
            "model": {"layers": 24, "width": 512, "heads": 8, "remat": "full", "classes": 10 * (objective == "joint")},
            "objective": {"name": "bert" if objective == "bert" else "ar", "class_weight": float(objective == "joint")},
        }
    )
    assert config.model.width == ig.SIZES["s"].width
    assert (config.model.layers, config.data) == (ig.SIZES["s"].layers, DataConfig())
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    optimizer = adam(OptimizerConfig(), lambda step: 1e-3)
    state = init_state(ig.ImageGPT(config.model), optimizer, 0, mesh)
    rng = np.random.default_rng(0)
    batch = {"tokens": rng.integers(0, 512, (2, 1024)).astype(np.int32), "label": np.array([3, 7], np.int32)}
    if objective != "joint":
        del batch["label"]
    batch = jax.device_put(batch, batch_sharding(mesh))
    step, _ = compile_train_step(config, optimizer, mesh, state, batch, None)
    losses = []
    for _ in range(2):
        state, metrics = step(state, batch)
        losses.append(float(metrics["nats_per_token"]))
    assert losses[0] == pytest.approx(np.log(512), rel=1e-5)
    assert losses[1] < losses[0]
    if objective == "joint":
        assert float(metrics["class_nats"]) < np.log(10)
    assert ObjectiveConfig().mask_rate == 0.15
