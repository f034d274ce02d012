"""`python -m igpt_jax codes`, from nothing to a codec and to a model that learns its codes."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

import igpt_jax as ig
from experiments import on_codes
from experiments.codes import get_config
from igpt_jax.__main__ import main
from igpt_jax.codes.codec import Codec
from igpt_jax.codes.config import CodecConfig
from igpt_jax.commands.run import Run, saved_config
from igpt_jax.config import DataConfig, PaletteConfig, RunConfig
from igpt_jax.data.sources import load_source

CONFIG = pathlib.Path(__file__).parents[2] / "experiments" / "codes.py"
SMALL = [
    f"--config={CONFIG}:data=photographs,steps=6",
    "--config.resolution=16",
    "--config.log_every=2",
    "--config.checkpoint_every=4",
    "--config.network.width=8",
    "--config.network.blocks=1",
]


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("codec") / "run"
    assert igpt("codes", f"--workdir={directory}", *SMALL) == 0
    return directory


def test_a_codec_is_left_with_its_measurements_and_a_picture(workdir):
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    codec = Codec.load(workdir)
    assert evaluation["codec"] == codec.hash
    assert evaluation["codes"] == len(codec) == 512
    assert evaluation["positions"] == 4
    assert evaluation["images"] == 1024
    assert evaluation["psnr"] == pytest.approx(10 * np.log10(255**2 / evaluation["mean_squared_error"]))
    assert 0 < evaluation["codes_used"] <= 100
    assert 1 <= evaluation["perplexity"] <= 512
    with Image.open(workdir / "reconstructions.png") as picture:
        assert picture.width > 6 * 16


def test_the_same_command_changes_nothing_and_other_options_are_refused(workdir, capsys):
    before = (workdir / "codec.safetensors").read_bytes()
    assert igpt("codes", f"--workdir={workdir}", *SMALL) == 0
    assert (workdir / "codec.safetensors").read_bytes() == before
    capsys.readouterr()
    assert igpt("codes", f"--workdir={workdir}", *SMALL, "--config.network.width=9") == 2
    assert "was made with network.width=8, now it is 9" in capsys.readouterr().err
    assert igpt("codes", f"--workdir={workdir}", *SMALL, "--config.muon_learning_rate=1") == 2
    assert "was made with muon_learning_rate=0.02" in capsys.readouterr().err
    assert igpt("codes", f"--workdir={workdir}", *SMALL, "--config.data.on_error=skip") == 0
    assert igpt("train", f"--config={CONFIG.with_name('digits.py')}", f"--workdir={workdir}") == 2
    assert "is the workdir of a codec" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.network.wdth=3"], "the config has no key network.wdth; did you mean network.width?"),
        (["--config.resolution=18"], "no multiple of network.factor=8; set it to 16"),
        (["--config.data.batch_size=9"], "is not divisible by the 8 devices"),
        (["--config.data.name=nothing"], "is not a source"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(arguments, message, tmp_path, capsys):
    assert igpt("codes", f"--workdir={tmp_path / 'run'}", *SMALL, *arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "run").exists()


def test_a_config_is_needed(tmp_path, capsys):
    assert igpt("codes", f"--workdir={tmp_path / 'run'}") == 2
    assert "--config=FILE is missing; codes needs one" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["", "data=photographs,factor=4", "quantizer=vq,steps=10"])
def test_every_argument_gives_a_codec(arguments):
    config = CodecConfig.from_dict(get_config(arguments).to_dict())
    assert config.resolution // config.network.factor in (16, 32)


def test_the_papers_model_on_codes_has_its_shape():
    config = RunConfig.from_dict(on_codes.get_config("scale=paper,resolution=48,codec=runs/c").to_dict())
    assert (config.model.layers, config.model.width, config.model.context) == (48, 1536, 2304)
    assert (config.data.name, config.palette.path) == ("imagenet2012", "runs/c")
    small = RunConfig.from_dict(on_codes.get_config("codes=runs/x,resolution=32").to_dict())
    assert (small.data.name, small.model.context, small.optimizer.name) == ("tokens:runs/x", 1024, "muon")


MODEL = [
    f"--config={CONFIG.with_name('digits.py')}",
    "--config.steps=6",
    "--config.log_every=2",
    "--config.checkpoint_every=3",
    "--config.model.layers=1",
    "--config.model.width=16",
    "--config.model.heads=2",
    "--config.model.resolution=4",
    "--config.model.vocabulary=512",
    "--config.evaluate.probe.augmented_epochs=0",
    "--config.evaluate.probe.l2=(0.1,)",
    "--config.data.fold_validation=False",
]


@pytest.fixture(scope="module")
def tokens(workdir, tmp_path_factory):
    """Photographs of 32x32 pixels as 4x4 codes."""
    directory = tmp_path_factory.mktemp("tokens") / "codes"
    source = ["--source=photographs", "--resolution=32", f"--palette={workdir}"]
    assert igpt("tokens", *source, f"--out={directory}") == 0
    return directory


@pytest.fixture(scope="module")
def model(tokens, tmp_path_factory):
    directory = tmp_path_factory.mktemp("model") / "run"
    assert igpt("train", f"--workdir={directory}", *MODEL, f"--config.data.name=tokens:{tokens}") == 0
    return directory


def test_token_files_hold_the_codes_of_the_pictures(workdir, tokens):
    codec, source = Codec.load(workdir), load_source(DataConfig(name=f"tokens:{tokens}"), "test")
    assert source.palette == codec
    images, labels = ig.load_images("photographs", "test", resolution=32)
    np.testing.assert_array_equal(source.read(np.arange(len(source))), codec.encode(images))
    np.testing.assert_array_equal(source.labels, labels)
    manifest = json.loads((tokens / "manifest.json").read_text())
    assert (manifest["palette"], manifest["resolution"]) == (codec.hash, 4)


def test_a_wrong_codec_is_refused(workdir, tokens, model, tmp_path, capsys):
    other = Codec.load(workdir)
    other.params["decoder"]["patches"]["bias"] = other.params["decoder"]["patches"]["bias"] + 1
    shutil.copytree(tokens, tmp_path / "tokens")
    other.save(tmp_path / "tokens" / "codec.safetensors")
    assert igpt("train", f"--workdir={tmp_path / 'a'}", *MODEL, f"--config.data.name=tokens:{tmp_path / 'tokens'}") == 2
    assert "but the tokens were made with" in capsys.readouterr().err
    shutil.copytree(model, tmp_path / "model")
    other.save(tmp_path / "model" / "codec.safetensors")
    assert igpt("sample", f"--workdir={tmp_path / 'model'}", "--n=1") == 2
    assert "put that one back" in capsys.readouterr().err


def test_a_run_on_codes_draws_whole_pictures(workdir, model):
    assert Codec.load(model) == Codec.load(workdir)
    assert {"samples.png", "completions.png", "surprise.png", "reconstructions.png"} <= {
        path.name for path in (model / "report").iterdir()
    }
    probe = json.loads((model / "evaluation.json").read_text())["probe"]
    assert probe["raw_pixels"] > 15  # the mean colors of patches tell photographs apart
    assert igpt("sample", f"--workdir={model}", "--n=2", "--gif") == 0
    with Image.open(model / "samples" / "00001.png") as picture:
        assert picture.size == (32, 32)
    assert (
        igpt("complete", f"--workdir={model}", "--n=1", "--rows=2", f"--images={model / 'samples' / '00000.png'}") == 0
    )
    with np.load(model / "completions" / "completions.npz") as arrays:
        assert str(arrays["codec"]) == Codec.load(model).hash
        assert arrays["tokens"].shape == (1, 1, 16)
    assert igpt("score", f"--workdir={model}", f"--images={model / 'samples'}") == 0
    assert igpt("quality", f"--workdir={model}", "--n=8") == 0
    training = json.loads((model / "quality" / "quality.json").read_text())["training"]
    assert training["views"] == 1  # codes look the same every time


def test_the_library_takes_such_a_model_as_any_other(model, tmp_path):
    loaded = ig.load(model)
    samples = ig.sample(loaded, 2)
    assert samples.shape == (2, 32, 32, 3)
    assert ig.complete(loaded, samples, n=3).shape == (2, 3, 32, 32, 3)
    assert ig.likelihood(loaded, samples).shape == (2, 4, 4)
    assert ig.features(loaded, samples).shape == (2, 2, 16)
    ig.save(loaded, tmp_path / "again")
    np.testing.assert_array_equal(ig.sample(ig.load(tmp_path / "again"), 2), samples)
    with pytest.raises(ig.InputError, match="codes, and --to=huggingface has no place for their codec"):
        ig.save(loaded, tmp_path / "huggingface", to="huggingface")
    again = ig.pretrain(ig.load_images("photographs", "test", resolution=32)[0][:40], palette=loaded.palette, steps=2)
    assert again.model.config.resolution == 4


def test_a_run_encodes_images_as_it_reads_them(workdir, model, tokens):
    """Training on images with the codec gives the tokens that token files hold."""
    config = dataclasses.replace(saved_config(model), data=DataConfig(name="photographs"))
    run = Run(dataclasses.replace(config, palette=PaletteConfig(path=str(workdir))), tokens.parent / "none")
    stored = load_source(DataConfig(name=f"tokens:{tokens}"), "test")
    batch = next(run.examples(run.test_source))
    np.testing.assert_array_equal(batch["tokens"], stored.read(batch["index"]))
    assert next(run.batches_from(3))["tokens"].shape == (config.data.batch_size, 16)
