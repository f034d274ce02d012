"""Training, stopping and going on, and what the workdir holds."""

import dataclasses

import jax
import numpy as np
import pytest
from orbax.checkpoint.checkpoint_managers import LatestN

import igpt_jax as ig
from igpt_jax.config import OptimizerConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.metrics import Progress, read_metrics
from igpt_jax.train.state import init_params
from tests.train.runs import PALETTE, assert_equal, batches_cut_off_at_5, metrics_of, train, with_options

CONFIG = with_options(checkpoint_every=4)


def run(workdir, config=CONFIG, **options):
    return train(workdir, config=config, evaluate=lambda params: {"test/width": params["sos"].size}, **options)


def without_times(lines):
    return [{name: x for name, x in line.items() if "second" not in name and "wait" not in name} for line in lines]


def test_slow_steps_are_told_between_the_logged_ones(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("igpt_jax.train.metrics.SECONDS", 0)
    train(tmp_path, config=with_options(log_every=4))
    lines = [line.split(" | ") for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line[0] for line in lines] == [f"step {step}/6" for step in range(1, 7)]
    assert [step for step, line in enumerate(lines, 1) if "nats/token" in line[1]] == [4, 6]
    assert all(line[-1].endswith(" left") for line in lines)


def test_between_logged_steps_the_time_left_is_that_of_the_logged_ones(monkeypatch, capsys):
    monkeypatch.setattr("igpt_jax.train.metrics.SECONDS", 0)
    progress = Progress(start_step=0, steps=100)
    progress.write_scalars(10, {"images_per_second": 3.2, "seconds_remaining": 900.0})
    progress.reached(50)
    assert capsys.readouterr().err.splitlines()[-1] == "step 50/100 | 0:08:20 left"  # 10 seconds a step


def test_a_run_cut_off_and_resumed_equals_an_undisturbed_one(tmp_path):
    undisturbed = run(tmp_path / "a")

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", batches_from=batches_cut_off_at_5)
    resumed = run(tmp_path / "b")
    jax.tree.map(np.testing.assert_array_equal, undisturbed, resumed)
    lines = [without_times(read_metrics(tmp_path / name / "metrics.jsonl")) for name in "ab"]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [1, 2, 3, 3, 4, 5, 6]


def test_a_long_run_with_muon_is_finished_early_by_a_branch_that_decays_on_any_mesh(tmp_path):
    model = dataclasses.replace(CONFIG.model, heads=4, positions="rotary", qk_norm=True)
    stable = OptimizerConfig("muon", 1e-2, schedule="constant", warmup_epochs=0)
    decaying = dataclasses.replace(stable, schedule="wsd", decay_fraction=0.5)
    long = with_options(model=model, optimizer=stable, steps=8)
    short = with_options(model=model, optimizer=decaying)
    train(tmp_path / "long", config=dataclasses.replace(long, keep_every=2))
    whole = train(tmp_path / "short", config=short)
    start = str(tmp_path / "long" / "checkpoints" / "2")
    branch = train(tmp_path / "branch", config=dataclasses.replace(short, continue_from=start))
    assert_equal(branch, tmp_path / "branch", (whole, [x for x in metrics_of(tmp_path / "short") if x["step"] > 2]))
    mesh_branch = train(tmp_path / "mesh", 8, dataclasses.replace(short, continue_from=start))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), mesh_branch.params, whole.params)


def test_load_returns_the_model_its_parameters_and_its_palette(tmp_path):
    state = run(tmp_path)
    model, params, palette = ig.load(tmp_path)
    assert model.config == CONFIG.model
    assert palette == PALETTE
    jax.tree.map(np.testing.assert_array_equal, params, state.params)


def test_only_the_newest_checkpoints_stay(tmp_path):
    run(tmp_path, dataclasses.replace(CONFIG, checkpoint_every=1, keep_checkpoints=2))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["5", "6"]


def test_a_diverged_run_stops_with_a_remedy(tmp_path):
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(learning_rate=3e38))
    with pytest.raises(ig.InputError, match=r"no longer finite at step 3: .*--replay=3 .*lower optimizer"):
        run(tmp_path, config)


def test_loading_what_is_no_work_dir_is_refused(tmp_path):
    with pytest.raises(ig.InputError, match=r"no checkpoint in .*; train one with"):
        ig.load(tmp_path)


def test_training_does_not_start_over_a_checkpoint_that_holds_parameters_alone(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=LatestN(1))
    mesh = make_mesh(CONFIG.parallel, jax.devices()[:1])
    checkpoints.save_params(0, init_params(ig.ImageGPT(CONFIG.model), 0, mesh), CONFIG, PALETTE)
    checkpoints.close()
    with pytest.raises(ig.InputError, match="no optimizer state"):
        run(tmp_path)
