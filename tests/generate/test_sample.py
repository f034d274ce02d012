"""Sampling against the model's own distribution, and its cache against the full forward."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.generate import sample as sample_module
from igpt_jax.generate.complete import complete
from igpt_jax.generate.sample import Sampler, image_keys, sample
from igpt_jax.model.decode import init_cache
from igpt_jax.parallel.mesh import logical_axes, make_mesh
from tests.model.test_image_gpt import apply, draw_params

TINY = ig.ModelConfig(layers=2, width=16, heads=2, resolution=3, vocabulary=5)
BERT = dataclasses.replace(TINY, objective="bert")
MODEL = ig.ImageGPT(TINY)
ONE, EIGHT = make_mesh(ParallelConfig(), jax.devices()[:1]), make_mesh(ParallelConfig())


def given(count, length=0):
    return np.random.default_rng(0).integers(0, TINY.vocabulary, (count, length)).astype(np.int32)


def test_greedy_samples_are_the_argmax_of_the_full_forward():
    params = draw_params(TINY)
    tokens_bt = sample(MODEL, params, image_keys(0, 4), given(4, 2), Sampler(temperature=0)).tokens
    likeliest_bt = apply(TINY, params, tokens_bt).argmax(-1)
    np.testing.assert_array_equal(tokens_bt[:, 2:], likeliest_bt[:, 2:])


def test_first_and_second_tokens_are_distributed_as_the_softmax_says():
    params, n = draw_params(TINY), 4000
    tokens_bt = np.asarray(sample(MODEL, params, image_keys(1, n), given(n)).tokens)
    logits_btv = apply(TINY, params, tokens_bt)
    first_v = scipy.special.softmax(np.asarray(logits_btv[0, 0], np.float64))
    counts_v = np.bincount(tokens_bt[:, 0], minlength=TINY.vocabulary)
    assert scipy.stats.chisquare(counts_v, n * first_v).pvalue > 1e-3
    commonest = counts_v.argmax()
    after = tokens_bt[:, 0] == commonest
    second_v = scipy.special.softmax(np.asarray(logits_btv[after.argmax(), 1], np.float64))
    counts_v = np.bincount(tokens_bt[after, 1], minlength=TINY.vocabulary)
    assert scipy.stats.chisquare(counts_v, after.sum() * second_v).pvalue > 1e-3


@pytest.mark.parametrize("window", [1, 2])
def test_segments_do_not_change_the_samples(window, monkeypatch):
    params = draw_params(TINY)
    whole = sample(MODEL, params, image_keys(0, 6), given(6), window=window)
    monkeypatch.setattr(sample_module, "SEGMENT", 2)
    jax.clear_caches()
    segmented = sample(MODEL, params, image_keys(0, 6), given(6), window=window)
    np.testing.assert_array_equal(whole.tokens, segmented.tokens)
    np.testing.assert_array_equal(whole.passes, segmented.passes)


@pytest.mark.parametrize(
    ("sampler", "length"),
    [
        (Sampler(), 0),
        (Sampler(temperature=0), 1),
        (Sampler(temperature=0.5, top_k=4), 7),
        (Sampler(top_p=0.8), 20),
    ],
)
def test_a_window_of_any_size_draws_the_images_of_drawing_one_by_one(sampler, length, monkeypatch):
    monkeypatch.setattr(sample_module, "SEGMENT", 20)
    config = dataclasses.replace(TINY, resolution=6, vocabulary=8)
    arguments = ig.ImageGPT(config), draw_params(config), image_keys(3, 5), given(5, length), sampler
    one_by_one = sample(*arguments)
    np.testing.assert_array_equal(one_by_one.passes, np.maximum(np.arange(36) - length + 1, 0)[None].repeat(5, axis=0))
    for window in (3, 36):
        at_once = sample(*arguments, window)
        np.testing.assert_array_equal(one_by_one.tokens, at_once.tokens)
        steps = np.diff(at_once.passes[:, max(0, length - 1) :])
        assert set(np.unique(steps)) <= {0, 1}  # passes are counted in raster order, and none is without a token
        assert all(np.bincount(passes_t[length:]).max() <= window for passes_t in np.asarray(at_once.passes))
        assert at_once.tokens_per_pass > 1


def test_a_pass_whose_guesses_are_all_right_keeps_its_whole_window():
    params = draw_params(TINY) | {"token_head": jnp.zeros((TINY.width, TINY.vocabulary))}  # all tie: color 0
    drawn = sample(MODEL, params, image_keys(0, 2), given(2), Sampler(temperature=0), window=4)
    np.testing.assert_array_equal(drawn.passes, [[1, 1, 1, 1, 2, 2, 2, 2, 3]] * 2)
    assert drawn.tokens_per_pass == pytest.approx(3)


def test_image_i_is_the_same_in_any_batch():
    params = draw_params(TINY)
    np.testing.assert_array_equal(
        sample(MODEL, params, image_keys(0, 2), given(2)).tokens,
        sample(MODEL, params, image_keys(0, 7), given(7)).tokens[:2],
    )


@pytest.mark.parametrize(("batch_size", "window"), [(3, 1), (8, 1), (64, 1), (8, 4), (64, 4)])
def test_cached_sharded_and_batched_drawing_gives_the_tokens_of_plain_drawing(batch_size, window):
    """Plain: the full forward on what is there so far, one image and one position at a time."""
    params, start_t = draw_params(TINY), given(1, 2)[0]
    settings = {"n": 11, "seed": 5, "batch_size": batch_size, "window": window}
    drawn_nt = complete(MODEL, params, start_t[None], mesh=EIGHT, **settings).tokens[0]
    np.testing.assert_array_equal(drawn_nt, complete(MODEL, params, start_t[None], mesh=ONE, **settings).tokens[0])
    for number in (0, 10):
        tokens_t = np.pad(start_t, (0, TINY.context - 2))
        rng = image_keys(5, 11)[number]
        for position in range(2, TINY.context):
            logits_v = apply(TINY, params, tokens_t[None])[0, position]
            tokens_t[position] = jax.random.categorical(jax.random.fold_in(rng, position), logits_v)
        np.testing.assert_array_equal(drawn_nt[number], tokens_t)


@pytest.mark.parametrize("window", [1, 4])
def test_every_device_draws_its_own_images(window):
    params = jax.device_put(draw_params(TINY), jax.NamedSharding(EIGHT, jax.P()))
    with logical_axes(EIGHT):
        drawn = sample(MODEL, params, image_keys(0, 16), given(16), Sampler(temperature=0), window)
    assert drawn.tokens.addressable_shards[0].data.shape == (2, TINY.context)


def test_a_completion_keeps_what_was_given_and_differs_between_draws():
    params, tokens_bt = draw_params(TINY), given(3, TINY.context)
    completed_bnt = complete(MODEL, params, tokens_bt[:, :3], n=20, seed=0, mesh=ONE).tokens
    assert completed_bnt.shape == (3, 20, TINY.context)
    np.testing.assert_array_equal(completed_bnt[:, :, :3], np.repeat(tokens_bt[:, None, :3], 20, axis=1))
    assert len(np.unique(completed_bnt[0, :, 3:], axis=0)) > 10


def test_a_bfloat16_model_caches_bfloat16_and_draws_nearly_the_same_colors():
    config = dataclasses.replace(TINY, dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(init_cache(config, 2, 4))} == {jnp.dtype("bfloat16")}
    params, n = draw_params(TINY), 4000
    drawn_nt = complete(ig.ImageGPT(config), params, given(1, 4), n=n, seed=2, mesh=ONE, batch_size=n).tokens[0]
    logits_v = np.asarray(apply(TINY, params, drawn_nt[:1])[0, 4], np.float64)
    shares_v = np.bincount(drawn_nt[:, 4], minlength=TINY.vocabulary) / n
    np.testing.assert_allclose(shares_v, scipy.special.softmax(logits_v), atol=0.04)


def test_every_token_of_a_bfloat16_window_is_drawn_from_the_networks_own_logits():
    """Within the rounding of the type, which is what the two types' logits differ by."""
    config = dataclasses.replace(TINY, resolution=6, dtype="bfloat16")
    params, rngs_b = draw_params(config), image_keys(4, 5)
    tokens_bt = sample(ig.ImageGPT(config), params, rngs_b, given(5), window=4).tokens
    logits_btv = apply(dataclasses.replace(config, dtype="float32"), params, tokens_bt)
    rounding = jnp.abs(apply(config, params, tokens_bt) - logits_btv).max()
    rngs_bt = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(rngs_b, jnp.arange(config.context))
    noise_btv = jax.vmap(jax.vmap(lambda rng: jax.random.gumbel(rng, (config.vocabulary,))))(rngs_bt)
    scores_btv = logits_btv + noise_btv
    drawn_bt = jnp.take_along_axis(scores_btv, tokens_bt[..., None], axis=2)[..., 0]
    assert (drawn_bt > scores_btv.max(axis=2) - 4 * rounding).all()
    assert rounding < 0.25 * logits_btv.std()


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
def test_top_k_and_top_p_keep_the_colors_of_their_definitions(sampler, kept):
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
            lambda: sample(MODEL, draw_params(TINY), image_keys(0, 1), given(1), Sampler(top_k=6)),
            "top_k=6 exceeds the 5 colors of the palette",
        ),
        (
            lambda: sample(ig.ImageGPT(BERT), draw_params(BERT), image_keys(0, 1), given(1)),
            "a bert model cannot draw an image left to right; hide pixels and fill them",
        ),
        (
            lambda: sample(MODEL, draw_params(TINY), image_keys(0, 1), given(1), window=0),
            "window=0 must be at least 1, which draws position by position",
        ),
        (
            lambda: complete(MODEL, draw_params(TINY), given(1), n=1, seed=0, mesh=ONE, batch_size=0),
            "batch_size=0 must be at least 1",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(call, message):
    with pytest.raises(ig.InputError, match=message):
        call()
