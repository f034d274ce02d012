"""What the page shows, without the page."""

import dataclasses

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.data.palette import Palette
from igpt_jax.demo.player import Player
from igpt_jax.generate.sample import Sampler
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.report.sheets import GRAY
from tests.model.test_image_gpt import draw_params

CONFIG = ig.ModelConfig(layers=1, width=16, heads=2, resolution=6, vocabulary=4)
PALETTE = Palette(np.array([[-1, -1, -1], [1, 1, 1], [1, -1, -1], [-1, -1, 1]], np.float32))
TRAIN = PALETTE.decode(np.random.default_rng(0).integers(0, 4, (5, 36)))


def player(objective):
    config = dataclasses.replace(CONFIG, objective=objective)
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    return Player(ig.ImageGPT(config), draw_params(config), PALETTE, mesh, TRAIN[:0], TRAIN)


@pytest.mark.parametrize("objective", ["ar", "bert"])
def test_only_hidden_pixels_change(objective):
    model = player(objective)
    for given in (1, 3, 5):
        *_, pictures = model.complete(TRAIN[0], given, 2, Sampler(), seed=0)
        seen = ~model.hidden(given)
        assert 0 < seen.sum() < 36
        np.testing.assert_array_equal(pictures[:, seen], np.broadcast_to(TRAIN[0][seen], (2, seen.sum(), 3)))


def test_rows_appear_one_after_the_other():
    steps = list(player("ar").complete(TRAIN[0], 2, 3, Sampler(), seed=0))
    missing = [(pictures == GRAY).all(-1).sum(axis=(1, 2)).tolist() for pictures in steps]
    assert missing == [[18] * 3, [12] * 3, [6] * 3, [0] * 3]


def test_a_picture_is_cut_to_its_central_square_and_laid_on_white():
    picture = np.zeros((60, 120, 4), np.uint8)  # transparent
    picture[:, 30:60] = (0, 0, 255, 255)  # the left half of the central square
    shrunk = player("ar").shrink(picture)
    assert (shrunk[:, :3] == (0, 0, 255)).all()
    assert (shrunk[:, 3:] == 255).all()


def test_the_surprise_is_the_likelihood_and_brighter_is_more():
    model = player("ar")
    nats, heat = model.surprise(TRAIN[1])
    pretrained = ig.Pretrained(model.model, model.params, PALETTE)
    np.testing.assert_allclose(nats, ig.likelihood(pretrained, TRAIN[1:2])[0], rtol=1e-5)
    brightness = heat.astype(int).sum(-1).ravel()
    order = brightness[np.argsort(nats.ravel())]
    assert np.corrcoef(order, np.arange(36))[0, 1] > 0.8


def test_a_training_image_is_its_own_neighbor():
    near = player("ar").neighbors(TRAIN[[3, 1]])
    for (image, distance), expected in zip(near, TRAIN[[3, 1]], strict=True):
        np.testing.assert_array_equal(image, expected)
        assert distance == 0
