"""`python -m igpt_jax codes`, from nothing to a codec and its picture."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from experiments.codes import get_config
from igpt_jax.__main__ import main
from igpt_jax.codes.codec import Codec
from igpt_jax.codes.config import CodecConfig

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
    assert "was made with network=" in capsys.readouterr().err


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
def test_every_argument_gives_a_config(arguments):
    config = CodecConfig.from_dict(get_config(arguments).to_dict())
    assert config.resolution // config.network.factor in (16, 32)
