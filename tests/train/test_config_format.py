"""Work dirs of older formats: they open, and measure what they measured."""

import contextlib
import json
import pathlib
import shutil

import jax
import pytest

import igpt_jax as ig
from igpt_jax.__main__ import main
from igpt_jax.config_format import FORMAT_VERSION, upgrade_config
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.workdir_lock import read_config, write_config
from tests.train.runs import CONFIG, PALETTE

# A run of two steps on the digits, made by the last version of the library that wrote format 2.
FORMAT_2 = pathlib.Path(__file__).parent / "fixtures" / "format2.tar.xz"


@pytest.fixture
def workdir(tmp_path):
    shutil.unpack_archive(FORMAT_2, tmp_path, filter="data")
    return tmp_path / "format2"


def test_a_work_dir_of_format_2_opens_with_todays_names(workdir):
    saved = json.loads((workdir / "config.json").read_text())
    assert "initialise_from" in saved
    assert "normalised" in saved["evaluate"]["probe"]
    config, palette_hash = read_config(workdir)
    assert (config.model.width, config.initialize_from, config.evaluate.probe.normalized) == (8, "", True)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        assert checkpoints.about(2)[0] == config
        assert checkpoints.about(2)[1].hash == palette_hash


def test_a_run_of_format_2_is_evaluated_to_the_figure_that_it_had(workdir):
    before = json.loads((workdir / "evaluation.json").read_text())
    assert main(["igpt_jax", "evaluate", f"--workdir={workdir}", "--probe=False"]) == 0
    after = json.loads((workdir / "evaluation.json").read_text())
    assert after["nats_per_token"]["test"] == pytest.approx(before["nats_per_token"]["test"], rel=1e-5)
    _, params, palette = ig.load(workdir)
    assert palette is not None
    assert all(leaf.dtype == "float32" for leaf in jax.tree.leaves(params))


def test_values_of_renamed_keys_are_kept():
    old = {"initialise_from": "runs/a", "seed": 3, "evaluate": {"every": 5, "probe": {"normalised": False}}}
    assert upgrade_config(old, 2) == {
        "initialize_from": "runs/a",
        "seed": 3,
        "evaluate": {"every": 5, "probe": {"normalized": False}},
    }
    assert upgrade_config(old, FORMAT_VERSION) == old


def test_a_config_of_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("igpt_jax.train.workdir_lock.FORMAT_VERSION", FORMAT_VERSION + 1)
    write_config(tmp_path, CONFIG, PALETTE)
    monkeypatch.undo()
    with pytest.raises(ig.InputError, match=f"has format version {FORMAT_VERSION + 1}; a newer igpt_jax wrote it"):
        read_config(tmp_path)
