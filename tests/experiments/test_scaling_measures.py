"""What finished scaling runs are measured by: new squares, and samples."""

import pytest

import igpt_jax as ig
from experiments.scaling_measures import frechet_distance, nats_on_new_squares

MODEL = {"layers": 2, "width": 32, "heads": 2, "resolution": 8, "vocabulary": 8, "unroll": 2}


def test_a_trained_run_samples_nearer_to_the_test_images(tmp_path):
    for name, steps in (("untrained", 1), ("trained", 150)):
        ig.pretrain("digits", workdir=tmp_path / name, steps=steps, model=MODEL)
    distance = frechet_distance(tmp_path / "trained", "digits", 8)
    assert distance(tmp_path / "trained") < distance(tmp_path / "untrained") / 3


def test_new_squares_cost_as_much_as_the_batches_of_training_do_and_searching_has_squares_of_its_own(tmp_path):
    ig.pretrain("photographs", workdir=tmp_path, steps=1, model=MODEL)
    found, searched = (
        nats_on_new_squares("photographs", 8, searching=searching)(tmp_path) for searching in (False, True)
    )
    pretrained = ig.load(tmp_path)
    images, _ = ig.load_images("photographs", "train", resolution=8)
    assert found == pytest.approx(float(ig.likelihood(pretrained, images[:2048]).mean()), rel=1e-5)
    assert searched == pytest.approx(float(ig.likelihood(pretrained, images[2048:]).mean()), rel=1e-5)
    assert not (images[:2048, None] == images[None, 2048:2148]).all((2, 3, 4)).any()
