"""Sampling row by row against sampling whole images."""

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.errors import InputError
from igpt_jax.generate.complete import complete
from igpt_jax.generate.rows import complete_by_rows
from igpt_jax.generate.sample import Sampler
from igpt_jax.parallel.mesh import make_mesh
from tests.model.test_image_gpt import draw_params

TINY = ig.ModelConfig(layers=2, width=16, heads=2, resolution=4, vocabulary=5)
MODEL = ig.ImageGPT(TINY)
GIVEN = np.random.default_rng(0).integers(0, 5, 16).astype(np.int32)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(0.7, 0, 0.8)])
def test_the_rows_are_those_of_whole_images(rows, sampler):
    params, given_t = draw_params(TINY), GIVEN[: 4 * rows]
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    whole_nt = complete(MODEL, params, given_t[None], n=3, seed=7, mesh=mesh, sampler=sampler).tokens[0]
    steps = list(complete_by_rows(MODEL, params, given_t, n=3, seed=7, sampler=sampler))
    assert len(steps) == 4 - rows
    for known, tokens_nt in enumerate(steps, start=rows + 1):
        np.testing.assert_array_equal(tokens_nt[:, : 4 * known], whole_nt[:, : 4 * known])
        assert (tokens_nt[:, 4 * known :] == 0).all()


@pytest.mark.parametrize("pixels", [3, 16])
def test_what_is_given_must_be_whole_rows_and_leave_one(pixels):
    with pytest.raises(InputError, match="give 0 to 3 whole rows of 4"):
        next(complete_by_rows(MODEL, draw_params(TINY), GIVEN[:pixels], n=1, seed=0, sampler=Sampler()))
