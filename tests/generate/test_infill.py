"""Infilling against the model's own conditional distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.generate.infill import hidden_square, infill
from igpt_jax.generate.sample import Sampler
from igpt_jax.parallel.mesh import make_mesh
from tests.model.test_image_gpt import apply, draw_params

TINY = ig.ModelConfig(layers=2, width=16, heads=2, resolution=3, vocabulary=5, objective="bert")
MODEL = ig.ImageGPT(TINY)
ONE = make_mesh(ParallelConfig(), jax.devices()[:1])
TOKENS = np.random.default_rng(0).integers(0, TINY.vocabulary, (3, TINY.context)).astype(np.int32)


def mask(*positions, count=3):
    hidden_bt = np.zeros((count, TINY.context), bool)
    hidden_bt[:, positions] = True
    return hidden_bt


@pytest.mark.parametrize(("rounds", "sweeps"), [(1, 0), (3, 0), (8, 2)])
def test_what_is_not_hidden_stays_and_what_is_hidden_has_no_influence(rounds, sweeps):
    params, hidden_bt = draw_params(TINY), mask(1, 4, 5, 8)
    hidden_bt[0, 4:] = False  # images may hide different numbers of pixels
    other = np.where(hidden_bt, (TOKENS + 1) % TINY.vocabulary, TOKENS)
    filled_bnt, again_bnt = (
        infill(MODEL, params, tokens_bt, hidden_bt, n=20, seed=0, mesh=ONE, rounds=rounds, sweeps=sweeps)
        for tokens_bt in (TOKENS, other)
    )
    np.testing.assert_array_equal(filled_bnt, again_bnt)
    kept_bt = ~hidden_bt
    for image in range(3):
        np.testing.assert_array_equal(
            filled_bnt[image][:, kept_bt[image]], np.tile(TOKENS[image][kept_bt[image]], (20, 1))
        )
        assert len(np.unique(filled_bnt[image], axis=0)) > 1


@pytest.mark.parametrize(("rounds", "sweeps"), [(1, 0), (5, 0), (1, 1)])
def test_one_hidden_pixel_is_drawn_from_the_models_conditional(rounds, sweeps):
    params, n = draw_params(TINY), 4000
    filled_bnt = infill(
        MODEL, params, TOKENS[:1], mask(4, count=1), n=n, seed=0, mesh=ONE, rounds=rounds, sweeps=sweeps
    )
    logits_btv = apply(TINY, params, TOKENS[:1], jnp.asarray(mask(4, count=1)))
    expected_v = n * scipy.special.softmax(np.asarray(logits_btv[0, 4], np.float64))
    counts_v = np.bincount(filled_bnt[0, :, 4], minlength=TINY.vocabulary)
    assert scipy.stats.chisquare(counts_v, expected_v).pvalue > 1e-3


def test_the_most_certain_pixel_comes_first():
    """With as many rounds as hidden pixels and temperature 0, by hand: fill the likeliest, look again."""
    params, hidden_t, tokens_t = draw_params(TINY), mask(0, 2, 7)[0], TOKENS[0].copy()
    filled_bnt = infill(MODEL, params, TOKENS[:1], hidden_t[None], n=1, seed=0, mesh=ONE, sampler=Sampler(0), rounds=50)
    while hidden_t.any():
        logits_tv = np.asarray(apply(TINY, params, tokens_t[None], jnp.asarray(hidden_t)[None])[0], np.float64)
        log_p_tv = np.where(hidden_t[:, None], scipy.special.log_softmax(logits_tv, axis=-1), -np.inf)
        position, token = np.unravel_index(log_p_tv.argmax(), log_p_tv.shape)
        tokens_t[position], hidden_t[position] = token, False
    np.testing.assert_array_equal(filled_bnt[0, 0], tokens_t)


def test_gibbs_sweeps_reach_a_fixed_point_of_the_conditionals_at_temperature_0():
    params, hidden_bt = draw_params(TINY), mask(0, 2, 7)
    filled_bt = infill(MODEL, params, TOKENS, hidden_bt, n=1, seed=0, mesh=ONE, sampler=Sampler(0), sweeps=30)[:, 0]
    again_bt = infill(MODEL, params, TOKENS, hidden_bt, n=1, seed=0, mesh=ONE, sampler=Sampler(0), sweeps=31)[:, 0]
    np.testing.assert_array_equal(filled_bt, again_bt)
    for position in (0, 2, 7):
        logits_btv = apply(TINY, params, filled_bt, jnp.asarray(mask(position)))
        np.testing.assert_array_equal(filled_bt[:, position], logits_btv[:, position].argmax(-1))


def test_eight_devices_and_small_batches_fill_alike():
    params, hidden_bt = draw_params(TINY), mask(1, 4, 5)
    filled = [
        infill(MODEL, params, TOKENS, hidden_bt, n=3, seed=0, mesh=mesh, sweeps=1, batch_size=size)
        for mesh, size in ((ONE, 64), (make_mesh(ParallelConfig()), 64), (ONE, 2))
    ]
    np.testing.assert_array_equal(filled[0], filled[1])
    np.testing.assert_array_equal(filled[0], filled[2])


def test_the_hidden_square_is_a_quarter_of_the_image():
    assert hidden_square(12).sum() == 36
    assert hidden_square(12)[3:9, 3:9].all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p: infill(
                ig.ImageGPT(ig.ModelConfig(layers=1, width=8, heads=1)), p, TOKENS, mask(1), n=1, seed=0, mesh=ONE
            ),
            "objective.name=bert",
        ),
        (lambda p: infill(MODEL, p, TOKENS, mask(1)[:1], n=1, seed=0, mesh=ONE), r"expected bool of shape \(3, 9\)"),
        (lambda p: infill(MODEL, p, TOKENS, mask(), n=1, seed=0, mesh=ONE), "hides nothing"),
        (lambda p: infill(MODEL, p, TOKENS, mask(1), n=1, seed=0, mesh=ONE, rounds=0), "rounds=0 must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(call, message):
    with pytest.raises(ig.InputError, match=message):
        call(draw_params(TINY))
