"""Sampling against the model's own distribution, and its cache against the full forward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import igpt_jax as ig
from igpt_jax.generate import sample as sample_module
from igpt_jax.generate.complete import complete
from igpt_jax.generate.sample import Sampler, image_keys, sample
from tests.model.test_image_gpt import apply, draw_params

TINY = ig.ModelConfig(layers=2, width=16, heads=2, resolution=3, vocabulary=5)
MODEL = ig.ImageGPT(TINY)


def given(count, length=0):
    return np.random.default_rng(0).integers(0, TINY.vocabulary, (count, length)).astype(np.int32)


def test_greedy_samples_are_the_argmax_of_the_full_forward():
    params = draw_params(TINY)
    tokens_bt = sample(MODEL, params, image_keys(0, 4), given(4, 2), Sampler(temperature=0))
    likeliest_bt = apply(TINY, params, tokens_bt).argmax(-1)
    np.testing.assert_array_equal(tokens_bt[:, 2:], likeliest_bt[:, 2:])


def test_first_and_second_tokens_are_distributed_as_the_softmax_says():
    params, n = draw_params(TINY), 4000
    tokens_bt = np.asarray(sample(MODEL, params, image_keys(1, n), given(n)))
    logits_btv = apply(TINY, params, tokens_bt)
    first_v = scipy.special.softmax(np.asarray(logits_btv[0, 0], np.float64))
    counts_v = np.bincount(tokens_bt[:, 0], minlength=TINY.vocabulary)
    assert scipy.stats.chisquare(counts_v, n * first_v).pvalue > 1e-3
    commonest = counts_v.argmax()
    after = tokens_bt[:, 0] == commonest
    second_v = scipy.special.softmax(np.asarray(logits_btv[after.argmax(), 1], np.float64))
    counts_v = np.bincount(tokens_bt[after, 1], minlength=TINY.vocabulary)
    assert scipy.stats.chisquare(counts_v, after.sum() * second_v).pvalue > 1e-3


def test_segments_do_not_change_the_samples(monkeypatch):
    params = draw_params(TINY)
    whole = sample(MODEL, params, image_keys(0, 6), given(6))
    monkeypatch.setattr(sample_module, "SEGMENT", 2)
    jax.clear_caches()
    segmented = sample(MODEL, params, image_keys(0, 6), given(6))
    np.testing.assert_array_equal(whole, segmented)


def test_image_i_is_the_same_in_any_batch():
    params = draw_params(TINY)
    np.testing.assert_array_equal(
        sample(MODEL, params, image_keys(0, 2), given(2)), sample(MODEL, params, image_keys(0, 7), given(7))[:2]
    )


def test_a_completion_keeps_what_was_given_and_differs_between_draws():
    params, tokens_bt = draw_params(TINY), given(3, TINY.context)
    completed_bnt = complete(MODEL, params, tokens_bt, given=3, n=20, seed=0)
    assert completed_bnt.shape == (3, 20, TINY.context)
    np.testing.assert_array_equal(completed_bnt[:, :, :3], np.repeat(tokens_bt[:, None, :3], 20, axis=1))
    assert len(np.unique(completed_bnt[0, :, 3:], axis=0)) > 10


@pytest.mark.parametrize(
    ("sampler", "kept"),
    [
        (Sampler(top_k=2), {1, 3}),
        (Sampler(top_p=0.5), {1}),
        (Sampler(top_p=0.51), {1, 3}),
        (Sampler(top_p=0.9), {1, 3, 0}),
        (Sampler(top_p=1.0), {0, 1, 2, 3}),
        (Sampler(temperature=1e-3), {1}),
    ],
)
def test_top_k_and_top_p_keep_the_colours_of_their_definitions(sampler, kept):
    logits_bv = jnp.log(jnp.tile(jnp.array([[0.15, 0.5, 0.05, 0.3]]), (3000, 1)))
    drawn = sampler(image_keys(0, 3000), logits_bv)
    assert set(np.unique(drawn).tolist()) == kept


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Sampler(top_p=0), r"top_p=0 must lie in \(0, 1\]"),
        (lambda: Sampler(top_k=-1), "top_k=-1 must be 0"),
        (lambda: Sampler(temperature=-1), "temperature=-1 must not be negative"),
        (
            lambda: sample(MODEL, draw_params(TINY), image_keys(0, 1), given(1, 9)),
            "9 positions are given and the image",
        ),
        (
            lambda: complete(MODEL, draw_params(TINY), given(1, 9), given=9, n=1, seed=0),
            "9 pixels are given; it takes 1",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(call, message):
    with pytest.raises(ig.InputError, match=message):
        call()
