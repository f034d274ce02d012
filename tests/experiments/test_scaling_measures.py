"""The Fréchet distance of finished runs' samples."""

import json

import igpt_jax as ig
from experiments.scaling_samples import DISTANCE, frechet_distances

MODEL = {"layers": 2, "width": 32, "heads": 2, "resolution": 8, "vocabulary": 8, "unroll": 2}


def test_a_trained_run_samples_nearer_to_the_test_images_and_no_distance_is_measured_twice(tmp_path):
    untrained, trained = tmp_path / "untrained", tmp_path / "trained"
    for workdir, steps in ((untrained, 1), (trained, 150)):
        ig.pretrain("digits", workdir=workdir, steps=steps, model=MODEL)
    far, near = frechet_distances([untrained, trained], trained, "digits", 8)
    assert near < far / 3
    kept = json.loads((trained / DISTANCE).read_text())
    assert kept["samples"]["fid"] == near
    assert trained.name in kept["network"]
    (trained / "checkpoints").rename(tmp_path / "gone")
    assert frechet_distances([trained, untrained], trained, "digits", 8) == [near, far]
