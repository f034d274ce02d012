"""The held-out loss of finished runs."""

import pytest

import igpt_jax as ig
from experiments.held_out_loss import held_out_loss
from experiments.runs import Job, Result, nats_per_token

MODEL = {"layers": 1, "width": 16, "heads": 1, "resolution": 8, "vocabulary": 8, "unroll": 1}


def test_a_run_on_squares_is_measured_on_new_squares_and_a_search_on_others(tmp_path):
    ig.pretrain("photographs", workdir=tmp_path / "run-seed0", steps=1, model=MODEL)
    result = Result(Job("run", "train", "photographs.py", ()), tmp_path, 0)
    found, searched = (held_out_loss("photographs", 8, searching=searching)(result) for searching in (False, True))
    pretrained = ig.load(tmp_path / "run-seed0")
    images, _ = ig.load_images("photographs", "train", resolution=8)
    assert found == pytest.approx(float(ig.likelihood(pretrained, images[:2048]).mean()), rel=1e-5)
    assert searched == pytest.approx(float(ig.likelihood(pretrained, images[2048:]).mean()), rel=1e-5)
    assert not (images[:2048, None] == images[None, 2048:2148]).all((2, 3, 4)).any()


def test_other_runs_have_measured_themselves():
    assert held_out_loss("emoji", 16) is nats_per_token
