"""The command line as people use it: a small run from nothing to its pictures, and refusals in one line."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import igpt_jax as ig
from igpt_jax.__main__ import main

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = ROOT / "experiments" / "digits.py"
SMALL = [
    "--config.steps=30",
    "--config.log_every=10",
    "--config.checkpoint_every=30",
    "--config.evaluate.every=20",
    "--config.evaluate.probe.augmented_epochs=0",
    "--config.optimizer.warmup_epochs=0.2",
    "--config.model.layers=1",
    "--config.model.width=16",
    "--config.model.heads=2",
    "--config.evaluate.probe.l2=(0.1,)",
]


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "digits"
    assert igpt("train", f"--config={CONFIG}", f"--workdir={directory}", *SMALL) == 0
    return directory


def test_a_run_leaves_its_measurements_and_its_pictures(workdir):
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    assert evaluation["step"] == 30
    assert 0 < evaluation["nats_per_token"]["test"] < np.log(16)
    probe = evaluation["probe"]
    assert len(probe["layers"]) == 2
    assert probe["accuracy"] == probe["layers"][probe["best_layer"]]
    assert 25 < probe["raw_pixels"] < 55
    assert evaluation["wall_seconds"] > 0
    for name in ("probe_by_layer", "loss", "palette", "samples", "completions"):
        with Image.open(workdir / "report" / f"{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 2, name


def test_the_work_dir_loads_and_predicts(workdir):
    model, params, palette = ig.load(workdir)
    image = np.zeros((1, 12, 12, 3), np.uint8)
    tokens = palette.encode(image)
    logits = model.apply({"params": params}, tokens)
    assert logits.shape == (1, 144, 16)
    np.testing.assert_array_equal(palette.decode(tokens), image)


def test_evaluate_repeats_what_training_measured(workdir):
    before = json.loads((workdir / "evaluation.json").read_text())
    assert igpt("evaluate", f"--workdir={workdir}") == 0
    after = json.loads((workdir / "evaluation.json").read_text())
    assert before["nats_per_token"] == pytest.approx(after["nats_per_token"])
    assert before["probe"] == after["probe"]


def test_sample_writes_images_a_grid_and_the_tokens(workdir, tmp_path):
    assert igpt("sample", f"--workdir={workdir}", "--n=4", "--seed=1", f"--out={tmp_path}") == 0
    written = np.load(tmp_path / "samples.npz")
    palette = ig.Palette(written["colors"])
    images = palette.decode(written["tokens"])
    for i in range(4):
        with Image.open(tmp_path / f"{i:05d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), images[i])
    assert (tmp_path / "grid.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "no command 'trian'; choose one of"),
        (["train", "--workdir=x"], "--config=FILE is missing"),
        (["train", f"--config={CONFIG}"], "--workdir=DIR is missing"),
        (["train", "--config=nowhere.py", "--workdir=x"], "nowhere.py"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.widht=3"], 'mean "width"'),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.width=wide"], "config.model.width=wide"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.width=11"], "width=11 is not divisible"),
        (["train", f"--config={CONFIG}:abc", "--workdir=x"], "get_config"),
        (["train", f"--config={CONFIG}", "--wrokdir=x"], "workdir"),
        (["train", f"--config={CONFIG}", "--workdir=x", "extra"], "'extra' is not a flag"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.data.name=digit"], "'digit' is not a source"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.palette.path=p.npy"], "no palette at p.npy"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.vocabulary=99"], "17 distinct colours"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.resolution=7"], "resolution=7 is smaller"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.steps=9"], "warm-up of 1 epochs is 45 steps"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.data.batch_size=20"], "batch_size=20 is not"),
        (["evaluate", "--workdir=nowhere"], "nowhere is not a work dir"),
        (["sample", "--workdir=nowhere"], "no checkpoint in"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert igpt(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*"))


def test_a_work_dir_of_another_config_or_palette_is_refused(workdir, tmp_path, capsys):
    arguments = ["train", f"--config={CONFIG}", f"--workdir={workdir}", *SMALL]
    assert igpt(*arguments, "--config.model.width=32") == 2
    assert "was made with model.width=16, now it is 32" in capsys.readouterr().err
    ig.Palette(np.zeros((16, 3))).save(tmp_path / "other.npy")
    assert igpt(*arguments, f"--config.palette.path={tmp_path / 'other.npy'}") == 2
    assert "palette.path" in capsys.readouterr().err


def test_help_is_quick_because_it_imports_neither_jax_nor_tensorflow():
    code = (
        "import sys; from igpt_jax.__main__ import main; assert main(['igpt_jax', 'train', '--help']) == 0; "
        "print(sorted({'jax', 'tensorflow'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "--workdir" in output
    assert output.endswith("[]\n")
