"""Features in memory and on disk, and what is read of them."""

import os

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import ParallelConfig, ProbeConfig
from igpt_jax.evaluate.features import Rows, split_features, stored
from igpt_jax.evaluate.forward import with_masks
from igpt_jax.evaluate.probe import probe
from igpt_jax.parallel.mesh import make_mesh
from tests.model.test_image_gpt import draw_params

CONFIG = ig.ModelConfig(layers=2, width=16, heads=2, resolution=4, vocabulary=5, objective="bert")
RNG = np.random.default_rng(0)
EXAMPLES = [
    {"tokens": RNG.integers(0, 5, (b, 16)).astype(np.int32), "label": RNG.integers(0, 3, b).astype(np.int32)}
    for b in (24, 24, 13)
]


def features(**options):
    mesh = make_mesh(ParallelConfig(), jax.devices()[:2])
    return split_features(ig.ImageGPT(CONFIG), draw_params(CONFIG), iter(EXAMPLES), mesh, **options)


def test_features_on_disk_equal_those_in_memory_and_leave_nothing_behind(tmp_path):
    in_memory_lbd, labels_b = features()
    for limit in (0, in_memory_lbd.nbytes // 2, in_memory_lbd.nbytes - 1):
        on_disk_lbd, their_labels_b = features(memory=limit, directory=tmp_path)
        assert isinstance(on_disk_lbd, np.memmap)
        np.testing.assert_array_equal(on_disk_lbd, in_memory_lbd)
        np.testing.assert_array_equal(their_labels_b, labels_b)
        assert not os.listdir(tmp_path)
    assert not isinstance(features(memory=in_memory_lbd.nbytes, directory=tmp_path)[0], np.memmap)


@pytest.mark.parametrize("solver", ["lbfgs", "sgd"])
def test_probes_read_the_disk_as_they_read_memory(solver, tmp_path):
    config = ProbeConfig(solver=solver, l2=(1e-2,), rates=(3.0, 1.0), steps=50)
    found = []
    for options in ({}, {"memory": 0, "directory": tmp_path}):
        features_lbd, labels_b = features(**options)
        found.append(probe(*(features_lbd, labels_b) * 2, classes=3, config=config, seed=0))
    assert found[0] == found[1]


def test_standardized_rows_have_mean_0_and_deviation_1_far_from_the_origin():
    features_lbd = (1000 + np.random.default_rng(1).normal(size=(2, 9000, 3))).astype(np.float32)
    features_lbd[1, :, 2] = 0.1
    rows = Rows.all(features_lbd, np.zeros(9000, np.int32)).select(np.arange(0, 9000, 2))
    mean_d, scale_d = rows.standardization((1, 0))
    read_bd = np.concatenate(features_lbd[[1, 0], ::2], axis=1)
    np.testing.assert_array_equal(rows.read((1, 0)), read_bd)
    np.testing.assert_allclose(mean_d, read_bd.astype(np.float64).mean(axis=0), rtol=1e-6)
    assert scale_d[2] == 0
    varying = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(scale_d[varying], 1 / read_bd[:, varying].astype(np.float64).std(axis=0), rtol=1e-5)


def test_any_float_type_is_stored_as_it_is(tmp_path):
    batches = [np.ones((2, 3, 4), jax.numpy.bfloat16), np.zeros((1, 3, 4), jax.numpy.bfloat16)]
    on_disk = stored(iter(batches), 0, tmp_path)
    assert on_disk.dtype == jax.numpy.bfloat16
    np.testing.assert_array_equal(on_disk, np.concatenate(batches))


def test_masks_are_functions_of_seed_image_and_draw():
    def masks(size, seed=0, draw=0):
        batches = ({"tokens": np.zeros((size, 100))} for _ in range(12 // size))
        return np.concatenate([batch["mask"] for batch in with_masks(batches, 0.15, seed, draw)])

    np.testing.assert_array_equal(masks(4), masks(6))
    for others in (masks(4, draw=1), masks(4, seed=1), np.roll(masks(4), 1, axis=0)):
        assert ((others != masks(4)).mean(axis=1) > 0.1).all()
    assert masks(4).mean() == pytest.approx(0.15, abs=0.04)
