"""A workdir whose files are damaged, of an older format, or another run's."""

import errno
import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import igpt_jax as ig
from igpt_jax.train.metrics import read_metrics
from igpt_jax.train.workdir_lock import read_config, write_config
from tests.train.runs import CONFIG, PALETTE, assert_equal, checkpoints_in, cut_off, evaluate, train, with_options


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax, where a read has failed
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path, undisturbed, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, evaluate=cut_off(evaluate, at=1))
    for part in (tmp_path / "checkpoints" / "3" / "params").rglob("d/*"):  # some of them superseded, and never read
        damage(part)
    _, params, _ = ig.load(tmp_path)
    assert f"{tmp_path}/checkpoints/3 is damaged" in capsys.readouterr().err
    _, before, _ = ig.load(tmp_path / "checkpoints" / "2")
    jax.tree.map(np.testing.assert_array_equal, params, before)
    with pytest.raises(ig.InputError, match="checkpoints/3 is damaged"):
        ig.load(tmp_path / "checkpoints" / "3")
    assert_equal(train(tmp_path), tmp_path, undisturbed)
    assert checkpoints_in(tmp_path) == ["3", "3.damaged", "4", "6"]


def test_trouble_of_the_file_system_damages_no_checkpoint(tmp_path, monkeypatch):
    train(tmp_path)
    before = checkpoints_in(tmp_path)

    def restore(*_, **__):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
    with pytest.raises(OSError, match="Too many open files"):
        train(tmp_path)
    assert checkpoints_in(tmp_path) == before


def test_a_run_whose_every_checkpoint_is_damaged_does_not_start_over(tmp_path):
    train(tmp_path, config=with_options(keep_checkpoints=1))
    damage(tmp_path / "checkpoints" / "6" / "about" / "metadata")
    with pytest.raises(ig.InputError, match=r"all checkpoints in .* are damaged"):
        train(tmp_path)


@pytest.mark.parametrize("value", [{"metrics": 3}, {"commit_timestamp_nsecs": "now"}])
def test_damaged_metadata_of_a_checkpoint_are_named_and_can_be_deleted(value, tmp_path):
    state = train(tmp_path, config=with_options(keep_checkpoints=1))
    path = tmp_path / "checkpoints" / "6" / "_CHECKPOINT_METADATA"
    path.write_text(json.dumps(json.loads(path.read_text()) | value))
    with pytest.raises(ig.InputError, match=r"metadata of a checkpoint .* damaged: .* delete .*_CHECKPOINT_METADATA"):
        ig.load(tmp_path)
    path.unlink()
    _, params, _ = ig.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)


def test_an_older_format_gives_its_parameters_and_a_newer_one_is_refused(tmp_path):
    state = train(tmp_path, config=with_options(keep_checkpoints=1))
    path = tmp_path / "checkpoints" / "6" / "about" / "metadata"
    about = json.loads(path.read_text())
    older = {name: about[name] for name in ("config", "palette", "palette_hash")} | {"format_version": 1}
    path.write_text(json.dumps(older))
    _, params, _ = ig.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
    with pytest.raises(ig.InputError, match=r"format version 1.* python -m igpt_jax convert"):
        train(tmp_path, config=with_options(steps=8))


def test_a_work_dir_keeps_its_config_and_notices_an_edit(tmp_path):
    write_config(tmp_path, CONFIG, PALETTE)
    assert read_config(tmp_path) == (CONFIG, PALETTE.hash)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"steps": 6', '"steps": 7'))
    with pytest.raises(ig.InputError, match=r"config.json is damaged or edited; delete it"):
        read_config(tmp_path)


def test_a_palette_that_is_not_the_checkpoints_is_refused(tmp_path):
    train(tmp_path)
    other = ig.Palette(PALETTE.colors[::-1])
    with pytest.raises(ig.InputError, match=f"the palette has hash {other.hash}, but .* {PALETTE.hash}"):
        train(tmp_path, palette=other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"step": 1, "x": 2.0}\n{"step": 2, "x"\n{"step": 3}\n', "line 2 of"),
        ('{"step": 1}\n[]\n', "line 2 of"),
        ('{"step": 1.5}\n', "line 1 of"),
        ('{"step": 1, "x": "2"}\n', "line 1 of"),
        ('{"step": 2}\n{"step": 1}\n', "not in order"),
    ],
)
def test_damaged_metrics_are_refused_by_line(text, message, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(ig.InputError, match=message):
        read_metrics(path)


def test_a_last_line_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "x": 2.5}\n{"step": 2, "x": 3.')
    assert read_metrics(path) == [{"step": 1, "x": 2.5}]
