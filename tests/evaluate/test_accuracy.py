"""Predictions of a class head against its logits."""

import jax
import numpy as np

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.evaluate.accuracy import percentage, predict
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.state import init_params


def test_every_image_of_a_split_is_classified_once_on_any_mesh():
    config = ig.ModelConfig(layers=1, width=16, heads=2, resolution=4, vocabulary=9, classes=6, objective="bert")
    model, rng = ig.ImageGPT(config), np.random.default_rng(0)
    tokens_bt, mask_bt = rng.integers(0, 9, (19, 16)).astype(np.int32), rng.random((19, 16)) < 0.3
    examples = [
        {"tokens": tokens_bt[rows], "mask": mask_bt[rows], "label": np.arange(19, dtype=np.int32)[rows] % 6}
        for rows in (slice(0, 8), slice(8, 16), slice(16, 19))
    ]
    one, eight = make_mesh(ParallelConfig(), jax.devices()[:1]), make_mesh(ParallelConfig())
    params = init_params(model, 0, one)
    params["class_head"] = jax.numpy.asarray(rng.normal(size=(16, 6)), "float32")
    classify = jax.jit(
        lambda tokens_bt, mask_bt: model.apply({"params": params}, tokens_bt, mask_bt, method="classify")
    )
    _, logits_bc = classify(tokens_bt, mask_bt)
    for mesh in (one, eight):
        found = predict(model, jax.device_get(params), examples, mesh)
        np.testing.assert_array_equal(found, [np.argmax(logits_bc, axis=1), np.arange(19) % 6])


def test_accuracy_is_in_per_cent_and_of_several_predictions_their_mean():
    labels_b = np.array([0, 1, 2, 2])
    assert percentage(np.array([0, 1, 0, 0]), labels_b) == 50
    assert percentage(np.array([[0, 1, 0, 0], [0, 1, 2, 2]]), labels_b) == 75
