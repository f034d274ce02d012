"""Fine-tuning from the command line: from an origin to a model that predicts, and what is refused."""

import json
import pathlib

import jax
import numpy as np
import pytest
from orbax.checkpoint.checkpoint_managers import LatestN
from PIL import Image

import igpt_jax as ig
from igpt_jax.__main__ import main
from igpt_jax.commands.run import Run, saved_config
from igpt_jax.config import DataConfig, EvaluateConfig, ModelConfig, ObjectiveConfig, ParallelConfig, RunConfig
from igpt_jax.data.sources import load_source
from igpt_jax.evaluate.forward import mean_nats
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.metrics import read_metrics
from igpt_jax.train.state import init_params
from igpt_jax.train.workdir_lock import write_config

FINETUNE = pathlib.Path(__file__).parents[2] / "experiments" / "finetune.py"
GRAYS = ig.Palette(np.repeat(np.linspace(-1, 1, 16)[:, None], 3, axis=1))
ORIGIN = RunConfig(
    model=ModelConfig(layers=1, width=16, heads=2, resolution=8, vocabulary=16, objective="bert"),
    objective=ObjectiveConfig("bert", mask_rate=0.3),
    data=DataConfig(batch_size=32),
    evaluate=EvaluateConfig(batch_size=72),
)
SMALL = [
    "--config.steps=6",
    "--config.log_every=1",
    "--config.checkpoint_every=3",
    "--config.evaluate.every=3",
    "--config.evaluate.votes=3",
    "--config.optimizer.warmup_epochs=0",
    "--config.optimizer.learning_rate=0.01",
]


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """A BERT model whose token head is not zero, as pretraining leaves it."""
    directory = tmp_path_factory.mktemp("origin")
    params = init_params(ig.ImageGPT(ORIGIN.model), 0, make_mesh(ParallelConfig(), jax.devices()[:1]))
    params["token_head"] += np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    checkpoints = Checkpoints(directory, keep=LatestN(1))
    checkpoints.save_params(7, params, ORIGIN, GRAYS)
    checkpoints.close()
    write_config(directory, ORIGIN, GRAYS)
    return directory


@pytest.fixture(scope="module")
def finetuned(origin, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "finetuned"
    assert igpt("train", f"--config={FINETUNE}:from={origin}", f"--workdir={workdir}", *SMALL) == 0
    return workdir


def test_a_run_starts_as_the_origin_and_measures_accuracy_and_no_probes(finetuned, origin):
    config, evaluation = saved_config(finetuned), json.loads((finetuned / "evaluation.json").read_text())
    assert (config.model.classes, config.objective.mask_rate, config.data.batch_size) == (10, 0.3, 32)
    assert ig.load(finetuned)[2] == GRAYS
    lines = read_metrics(finetuned / "metrics.jsonl")
    assert lines[0]["class_nats"] == pytest.approx(np.log(10), rel=1e-5)
    run = Run(config, finetuned)
    model, params, _ = ig.load(origin, mesh=run.mesh)
    before = mean_nats(model, params, run.examples(run.train_source), run.mesh)
    assert lines[0]["nats_per_token"] == pytest.approx(before, rel=0.05)  # of the first batch, under other masks
    measured = [line for line in lines if "validation/accuracy" in line]
    assert [line["step"] for line in measured] == [3, 6]
    assert not any("probe" in name for line in lines for name in line)
    best = max(measured, key=lambda line: line["validation/accuracy"])["step"]
    assert evaluation["step"] == best
    expected = {"step", "images", "training_images", "nats_per_token", "accuracy", "accuracy_vote", "wall_seconds"}
    assert set(evaluation) == expected
    assert (finetuned / "report" / "infills.png").exists()


def test_the_loaded_model_predicts_what_evaluate_measured(finetuned, capsys):
    drawn = (finetuned / "report" / "infills.png").stat().st_mtime_ns
    assert igpt("evaluate", f"--workdir={finetuned}", "--split=test", "--report=False") == 0
    assert (finetuned / "report" / "infills.png").stat().st_mtime_ns == drawn
    evaluation = json.loads((finetuned / "evaluation.json").read_text())
    assert f"test: {evaluation['accuracy']['test']:.1f} % right, " in capsys.readouterr().out
    (model, params, _), run = ig.load(finetuned), Run(saved_config(finetuned), finetuned)
    classify = jax.jit(
        lambda tokens_bt, mask_bt: model.apply({"params": params}, tokens_bt, mask_bt, method="classify")
    )
    source, rates, predictions_nb = load_source(run.config.data, "test"), [], []
    for draw in range(3):
        batches = list(run.examples(source, draw=draw))
        logits = [classify(batch["tokens"], batch["mask"])[1] for batch in batches]
        labels_b = np.concatenate([batch["label"] for batch in batches])
        predictions_nb.append(np.concatenate(logits).argmax(axis=1))
        rates.append(np.mean([batch["mask"].mean() for batch in batches]))
    assert len(labels_b) == 360
    assert rates == pytest.approx([0.3] * 3, abs=0.01)
    assert len(set(rates)) == 3
    assert evaluation["accuracy"]["test"] == pytest.approx(100 * np.mean(predictions_nb == labels_b))
    agreeing_b = np.ptp(predictions_nb, axis=0) == 0
    least = 100 * np.mean((predictions_nb[0] == labels_b) & agreeing_b)
    assert least <= evaluation["accuracy_vote"]["test"] <= 100


def test_a_run_with_a_checkpoint_does_not_need_its_origin(finetuned, origin):
    aside = origin.with_name("aside")
    origin.rename(aside)
    try:
        assert Run.open(saved_config(finetuned), finetuned).palette == GRAYS
    finally:
        aside.rename(origin)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.model.width=32"], "has model.width=16, this run 32; set model.width=16"),
        (["--config.model.classes=7"], "data.name=digits has 10 classes, but model.classes=7; set model.classes=0"),
        (["--config.data.name=folder:plain"], "data.name=folder:plain has no labels"),
        (["--config.initialize_from=nowhere"], "no checkpoint in nowhere"),
        (["--config.palette.path=other.npy"], "use one palette for both"),
        (["--config.keep_best=probe/accuracy"], "set it to validation/accuracy"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_in_one_line(arguments, message, origin, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ig.Palette(GRAYS.colors / 2).save("other.npy")
    pathlib.Path("plain").mkdir()
    for i in range(20):
        Image.new("L", (12, 12), i).save(f"plain/{i}.png")
    assert igpt("train", f"--config={FINETUNE}:from={origin}", "--workdir=run", *SMALL, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not pathlib.Path("run").exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("form=x", "'form=x' is not an argument; give from, size, resolution"),
        ("from=model.ckpt-7", "data=NAME for released weights"),
        ("from=model.ckpt-7,data=cifar10,size=xs", "size=xs is not one of s, m, l, xl"),
    ],
)
def test_arguments_that_do_not_say_enough_are_refused(argument, message, capsys):
    assert igpt("train", f"--config={FINETUNE}:{argument}", "--workdir=run") == 2
    assert message in capsys.readouterr().err
