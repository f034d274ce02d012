"""Losses that are not finite: found, explained, replayed, or skipped."""

import json

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import OptimizerConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.replay import replay
from tests.train.runs import CONFIG, batches_from, checkpoints_in, metrics_of, train, with_options


def spiking_batches(step):
    for batch in batches_from(step):
        if batch["index"][0] == 8 * 3:  # of step 4
            batch["tokens"][5] = 99  # no such color: NaN
        yield batch


def test_a_loss_that_is_not_finite_stops_the_run_and_a_replay_names_the_image(tmp_path, capsys):
    with pytest.raises(ig.InputError, match=r"no longer finite at step 4: .*--replay=4 .*skip_spikes=1"):
        train(tmp_path, batches_from=spiking_batches)
    evidence = json.loads((tmp_path / "nonfinite.json").read_text())
    assert evidence["step"] == 4
    assert evidence["index"] == list(range(24, 32))
    assert evidence["last_finite"]["step"] == 3
    assert np.isfinite(list(evidence["last_finite"].values())).all()
    before = checkpoints_in(tmp_path)
    mesh = make_mesh(CONFIG.parallel, jax.devices()[:1])
    capsys.readouterr()
    found = replay(CONFIG, tmp_path, 4, images_per_epoch=16, batches_from=spiking_batches, mesh=mesh)
    assert found["index"][~np.isfinite(found["nats_per_token"])] == [29]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "from step 3 to 4"
    assert shown[2].startswith("image 29: ")
    assert checkpoints_in(tmp_path) == before


def test_replayed_images_average_to_the_loss_of_their_step(tmp_path, undisturbed):
    mesh = make_mesh(CONFIG.parallel, jax.devices()[:8])
    found = replay(CONFIG, tmp_path, 2, images_per_epoch=16, batches_from=batches_from, mesh=mesh)
    assert found["nats_per_token"].mean() == pytest.approx(undisturbed[1][1]["nats_per_token"], rel=1e-5)


def test_as_many_spikes_as_allowed_are_skipped_and_counted(tmp_path):
    config = with_options(optimizer=OptimizerConfig(learning_rate=1e-2, skip_spikes=1))
    state = train(tmp_path, config=config, batches_from=spiking_batches)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    lines = {line["step"]: line for line in metrics_of(tmp_path) if "skipped" in line}
    assert [lines[step]["skipped"] for step in range(1, 7)] == [0, 0, 0, 1, 1, 1]
    assert "nats_per_token" not in lines[4]
    before, after = (ig.load(tmp_path / "checkpoints" / step)[1] for step in "34")
    jax.tree.map(np.testing.assert_array_equal, before, after)
