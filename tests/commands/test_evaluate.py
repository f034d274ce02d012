"""What `evaluate` measures: several views of the images, and models that another run trained."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint.checkpoint_managers import LatestN

import igpt_jax as ig
from igpt_jax.__main__ import main
from igpt_jax.commands.evaluate import evaluate, restore
from igpt_jax.commands.run import Run, saved_config
from igpt_jax.config import (
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    ParallelConfig,
    ProbeConfig,
    RunConfig,
)
from igpt_jax.objectives import token_nats
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.state import abstract_params
from igpt_jax.train.workdir_lock import write_config

DIGITS = pathlib.Path(__file__).parents[2] / "experiments" / "digits.py"
GRAYS = ig.Palette(np.repeat(np.linspace(-1, 1, 16)[:, None], 3, axis=1))
CONFIG = RunConfig(
    model=ModelConfig(layers=1, width=16, heads=2, resolution=12, vocabulary=16),
    data=DataConfig(batch_size=32),
    evaluate=EvaluateConfig(batch_size=360, probe=ProbeConfig(l2=(0.1,))),
)


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


def write_workdir(directory, config):
    """A workdir whose parameters are all drawn at random."""
    like = abstract_params(ig.ImageGPT(config.model), make_mesh(ParallelConfig(), jax.devices()[:1]))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 1, leaf.shape), leaf.dtype), like)
    checkpoints = Checkpoints(directory, keep=LatestN(1))
    checkpoints.save_params(7, params, config, GRAYS)
    checkpoints.close()
    write_config(directory, config, GRAYS)
    return directory


def stacked(batches):
    batches = list(batches)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def test_every_view_places_the_images_anew_and_the_first_is_what_one_view_sees(tmp_path):
    once = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(CONFIG.model, objective="bert"),
        objective=ObjectiveConfig("bert"),
    )
    thrice = dataclasses.replace(once, evaluate=dataclasses.replace(once.evaluate, views=3))
    write_config(tmp_path, once, GRAYS)
    first, seen = (stacked(Run.open(config, tmp_path).test_examples()) for config in (once, thrice))
    views = {name: x.reshape(3, 360, *x.shape[1:]) for name, x in seen.items()}
    for name, x in first.items():
        np.testing.assert_array_equal(views[name][0], x)
    for name in ("label", "index"):
        np.testing.assert_array_equal(views[name], np.tile(first[name], (3, 1)))
    for one, other in ((0, 1), (0, 2), (1, 2)):  # of 25 places, two draws differ 24 times
        moved = (views["tokens"][one] != views["tokens"][other]).any(axis=1)
        assert moved.mean() == pytest.approx(0.96, abs=0.04)
        assert (views["mask"][one] != views["mask"][other]).any(axis=1).all()
    np.testing.assert_array_equal(*np.sort(views["tokens"][:2], axis=2))  # the same pixels, elsewhere
    rerun = dataclasses.replace(thrice, seed=5)
    np.testing.assert_array_equal(stacked(Run(rerun, tmp_path).test_examples())["tokens"], seen["tokens"])


def test_likelihood_accuracy_and_probes_are_means_over_the_views(tmp_path):
    config = dataclasses.replace(
        CONFIG,
        model=dataclasses.replace(CONFIG.model, classes=10),
        objective=ObjectiveConfig(class_weight=1),
        evaluate=dataclasses.replace(CONFIG.evaluate, views=3),
    )
    run = Run(config, write_workdir(tmp_path, config))
    evaluate(run, *reversed(restore(run)), 0.0, probed=True)
    found = json.loads((tmp_path / "evaluation.json").read_text())
    model, params, _ = ig.load(tmp_path)
    classify = jax.jit(lambda tokens_bt: model.apply({"params": params}, tokens_bt, method="classify"))
    nats, right = [], []
    for batch in run.examples(run.test_source, views=3):
        logits_btv, logits_bc = classify(batch["tokens"])
        nats.append(token_nats(logits_btv, batch["tokens"]).mean())
        right.append(100 * np.mean(logits_bc.argmax(axis=1) == batch["label"]))
    assert min(len(set(map(float, measures))) for measures in (nats, right)) > 1
    assert found["nats_per_token"]["test"] == pytest.approx(np.mean(nats), rel=1e-5)
    assert found["accuracy"]["test"] == pytest.approx(np.mean(right))
    assert found["views"] == 3
    rows = 10.8 * np.array([found["probe"]["raw_pixels"], *found["probe"]["layers"]])  # of 1080
    np.testing.assert_allclose(rows, np.rint(rows), atol=1e-6)
    assert (np.rint(rows) % 3).any()


SHAPE = ["layers=1", "width=16", "heads=2", "unroll=1"]
PROBE = ["l2=(1,)", "augmented_epochs=0"]
MEASURING = [
    f"--config={DIGITS}",
    *(f"--config.model.{option}" for option in SHAPE),
    *(f"--config.evaluate.probe.{option}" for option in PROBE),
]


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A fine-tuned model, whose class head the probes do not need."""
    model = dataclasses.replace(CONFIG.model, classes=7)
    return write_workdir(tmp_path_factory.mktemp("origin"), dataclasses.replace(CONFIG, model=model))


def test_an_origin_is_measured_on_the_configs_data_in_a_work_dir_of_its_own(origin, tmp_path, capsys):
    workdir = tmp_path / "measured"
    arguments = ["evaluate", *MEASURING, f"--workdir={workdir}"]
    assert igpt(*arguments, f"--config.initialize_from={origin / 'checkpoints' / '7'}") == 0
    found = json.loads((workdir / "evaluation.json").read_text())
    assert found["step"] == 7
    assert set(found) == {"step", "images", "training_images", "nats_per_token", "probe", "wall_seconds"}
    assert (workdir / "report" / "probe_by_layer.png").exists()
    model, params, palette = ig.load(origin)
    assert ig.Palette.load(workdir / "palette.npy") == palette
    run = Run(saved_config(workdir), workdir)
    tokens_bt = stacked(run.test_examples())["tokens"]
    nats = token_nats(jax.jit(model.apply)({"params": params}, tokens_bt), tokens_bt).mean()
    assert found["nats_per_token"]["test"] == pytest.approx(float(nats), rel=1e-5)
    assert len(found["probe"]["layers"]) == 2
    capsys.readouterr()
    assert igpt(*arguments, f"--config.initialize_from={origin}") == 2
    error = capsys.readouterr().err
    assert f"was made with initialize_from='{origin / 'checkpoints' / '7'}', now it is" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no checkpoint in"),
        (["--config.initialize_from=nowhere"], "no checkpoint in nowhere"),
        (["--config.initialize_from=ORIGIN", "--step=7"], "set initialize_from=DIR/checkpoints/7"),
        (
            ["--config.initialize_from=ORIGIN", "--config.model.classes=10"],
            "nothing has trained the head of its 10 classes; train it, ",
        ),
        (["--config.initialize_from=ORIGIN/checkpoints/8"], "no checkpoint in"),
    ],
)
def test_what_cannot_be_measured_leaves_nothing(arguments, message, origin, tmp_path, capsys):
    GRAYS.save(tmp_path / "grays.npy")
    arguments = [argument.replace("ORIGIN", str(origin)) for argument in arguments]
    workdir, palette = tmp_path / "measured", tmp_path / "grays.npy"
    assert igpt("evaluate", *MEASURING, f"--config.palette.path={palette}", f"--workdir={workdir}", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not workdir.exists()
