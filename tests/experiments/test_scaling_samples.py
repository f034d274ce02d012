"""The Fréchet distance of finished runs' samples."""

import igpt_jax as ig
from experiments.scaling_samples import frechet_distance

MODEL = {"layers": 2, "width": 32, "heads": 2, "resolution": 8, "vocabulary": 8, "unroll": 2}


def test_a_trained_run_samples_nearer_to_the_test_images(tmp_path):
    for name, steps in (("untrained", 1), ("trained", 150)):
        ig.pretrain("digits", workdir=tmp_path / name, steps=steps, model=MODEL)
    distance = frechet_distance(tmp_path / "trained", "digits", 8)
    near, far = distance(tmp_path / "trained"), distance(tmp_path / "untrained")
    assert near["frechet_distance"] < far["frechet_distance"] / 3
    assert near["frechet_features"] == far["frechet_features"]
    assert "trained" in near["frechet_features"]
