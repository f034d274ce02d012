"""The network against the equations, the paper's parameter counts, and itself computed in other ways."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import REMAT
from igpt_jax.model.decode import decode, decoding_weights, init_cache
from igpt_jax.model.image_gpt import count_parameters
from igpt_jax.model.rotary import rotate
from tests import reference

TINY = ig.ModelConfig(layers=3, width=24, heads=3, resolution=4, vocabulary=7)
OPTIONS = [
    {"positions": "rotary"},
    {"qk_norm": True},
    {"activation": "squared_relu"},
    {"activation": "swiglu"},
    {"positions": "rotary", "qk_norm": True, "activation": "swiglu", "use_bias": True},
]


def draw_params(config):
    """Parameters with nothing left at zero or one, so that every term of the equations shows."""
    tokens_bt = jnp.zeros((1, config.context), jnp.int32)
    shapes = nn.unbox(jax.eval_shape(ig.ImageGPT(config).init, jax.random.key(0), tokens_bt))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), shapes)


def draw_tokens(config, batch=2):
    return jax.random.randint(jax.random.key(9), (batch, config.context), 0, config.vocabulary)


@functools.partial(jax.jit, static_argnames=("config", "method"))
def apply(config, params, *args, method=None):
    return ig.ImageGPT(config).apply({"params": params}, *args, method=method)


@pytest.mark.parametrize(("size", "parameters"), [("s", 76_571_648), ("m", 455_157_760), ("l", 1_362_250_752)])
def test_parameter_counts_are_those_of_the_released_models(size, parameters):
    config = ig.SIZES[size]
    assert count_parameters(config) == parameters
    assert count_parameters(dataclasses.replace(config, objective="bert")) == parameters - config.width
    at_48 = dataclasses.replace(config, resolution=48)
    assert count_parameters(at_48) == parameters + (48**2 - 32**2) * config.width


def test_xl_has_the_papers_6801_million_parameters_when_counted_at_context_1024():
    counted = count_parameters(dataclasses.replace(ig.SIZES["xl"], resolution=32))
    assert counted // 10**6 == 6801
    assert ig.SIZES["xl"].context == 4096


@pytest.mark.parametrize("objective", ["ar", "bert"])
@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize("attention", ["plain", "blockwise"])
def test_logits_and_features_equal_the_numpy_reference(objective, use_bias, attention):
    config = dataclasses.replace(TINY, objective=objective, use_bias=use_bias, attention=attention)
    params, tokens_bt = draw_params(config), draw_tokens(config)
    mask = jax.random.bernoulli(jax.random.key(5), 0.4, tokens_bt.shape) if objective == "bert" else None
    logits_btv = apply(config, params, tokens_bt, mask)
    features_lbd = apply(config, params, tokens_bt, mask, method="features")
    assert logits_btv.dtype == features_lbd.dtype == jnp.float32
    for b in range(2):
        logits_tv, features_ld = reference.forward(
            params, np.asarray(tokens_bt[b]), 3, objective, None if mask is None else np.asarray(mask[b])
        )
        np.testing.assert_allclose(logits_btv[b], logits_tv, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(features_lbd[:, b], features_ld, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["ar", "bert"])
@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_of_the_block_equals_the_numpy_reference_and_decodes_alike(objective, options):
    config = dataclasses.replace(TINY, objective=objective, **options)
    params, tokens_bt = draw_params(config), draw_tokens(config)
    mask = jax.random.bernoulli(jax.random.key(5), 0.4, tokens_bt.shape) if objective == "bert" else None
    logits_btv = apply(config, params, tokens_bt, mask)
    features_lbd = apply(config, params, tokens_bt, mask, method="features")
    for b in range(2):
        logits_tv, features_ld = reference.forward(
            params,
            np.asarray(tokens_bt[b]),
            3,
            objective,
            None if mask is None else np.asarray(mask[b]),
            activation=config.activation,
        )
        np.testing.assert_allclose(logits_btv[b], logits_tv, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(features_lbd[:, b], features_ld, rtol=1e-4, atol=1e-4)
    if objective == "ar":
        np.testing.assert_allclose(decode_in_calls_of(3, config, params, tokens_bt), logits_btv, atol=5e-5)


def test_rotated_products_depend_on_the_distance_in_rows_and_columns_alone():
    q_k, k_k = np.random.default_rng(0).normal(size=(2, 16)).astype(np.float32)

    def product(query_pixel, key_pixel):
        q, k = (
            rotate(jnp.asarray(x)[None, None, None], jnp.full((1, 1), pixel), 7)[0, 0, 0]
            for x, pixel in ((q_k, query_pixel), (k_k, key_pixel))
        )
        return float(q @ k)

    assert product(7 * 3 + 4, 7 * 1 + 2) == pytest.approx(product(7 * 5 + 6, 7 * 3 + 4), rel=1e-5)
    assert product(0, 0) == pytest.approx(float(q_k @ k_k), rel=1e-5)
    assert abs(product(8, 7) - product(7, 6)) > 1e-3  # the pixel before is a neighbor, but not in the first column
    assert product(7 * 2 + 2, -1) == pytest.approx(product(7 * 5 + 5, 7 * 2 + 2), rel=1e-5)  # the start vector's place


def test_a_gated_mlp_has_as_many_weights():
    plain, gated = (
        count_parameters(dataclasses.replace(ig.SIZES["m"], activation=x)) for x in ("quick_gelu", "swiglu")
    )
    assert gated == pytest.approx(plain, rel=2e-3)


@pytest.mark.parametrize("objective", ["ar", "bert"])
def test_a_tied_head_is_the_embedding_and_decodes_alike(objective):
    config = dataclasses.replace(TINY, tied_head=True, objective=objective)
    params, tokens_bt = draw_params(config), draw_tokens(config)
    assert "token_head" not in params
    assert count_parameters(config) == count_parameters(dataclasses.replace(config, tied_head=False)) - 7 * 24
    with_head = params | {"token_head": np.asarray(params["token_embedding"]).T}
    logits_btv = apply(config, params, tokens_bt)
    for b in range(2):
        logits_tv, _ = reference.forward(with_head, np.asarray(tokens_bt[b]), 3, objective)
        np.testing.assert_allclose(logits_btv[b], logits_tv, rtol=1e-4, atol=1e-4)
    if objective == "ar":
        previous_bt = jnp.pad(tokens_bt, ((0, 0), (1, 0)))[:, :-1]
        weights, cache = decoding_weights(config, params), init_cache(config, 2, config.context)
        decoded_btv, _ = jax.jit(decode, static_argnums=0)(config, weights, previous_bt, jnp.zeros(2, int), cache)
        np.testing.assert_allclose(decoded_btv, logits_btv, atol=1e-4)


def test_heads_that_are_not_zero_start_as_gpt2_draws_its_weights_and_change_nothing_else():
    zero = dataclasses.replace(TINY, width=240, classes=300)
    tokens_bt = jnp.zeros((1, 16), jnp.int32)
    trees = [
        nn.unbox(ig.ImageGPT(config).init(jax.random.key(0), tokens_bt, method="classify"))["params"]
        for config in (zero, dataclasses.replace(zero, zero_heads=False))
    ]
    for name in ("token_head", "class_head"):
        none, drawn = (tree.pop(name) for tree in trees)
        assert not none.any()
        assert jnp.std(drawn) == pytest.approx(0.02, rel=5 / drawn.size**0.5)
    jax.tree.map(np.testing.assert_array_equal, *trees)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_features_before_the_norms_equal_the_numpy_reference_and_change_nothing_else(remat):
    config = dataclasses.replace(TINY, remat=remat)
    params, tokens_bt = draw_params(config), draw_tokens(config)
    model = ig.ImageGPT(config, normalized_features=False)
    features_lbd = model.apply({"params": params}, tokens_bt, method="features")
    for b in range(2):
        _, features_ld = reference.forward(params, np.asarray(tokens_bt[b]), 3, "ar", normalized=False)
        np.testing.assert_allclose(features_lbd[:, b], features_ld, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(jax.jit(model.apply)({"params": params}, tokens_bt), apply(config, params, tokens_bt))


def test_position_i_depends_on_every_token_before_it_and_on_none_after():
    # Every token occurs once, so that the gradient of its embedding is its influence.
    config = dataclasses.replace(TINY, vocabulary=TINY.context)
    params, t = draw_params(config), TINY.context

    def logit_sums_t(embedding_td):
        return apply(config, params | {"token_embedding": embedding_td}, jnp.arange(t)[None])[0].sum(-1)

    influence_ts = jnp.abs(jax.jacobian(logit_sums_t)(params["token_embedding"])).max(-1)
    before_ts = np.tri(t, t, -1, dtype=bool)
    assert (np.asarray(influence_ts)[before_ts] > 0).all()
    assert (np.asarray(influence_ts)[~before_ts] == 0).all()


def test_bert_positions_depend_on_every_token_but_the_masked():
    config = dataclasses.replace(TINY, objective="bert", vocabulary=TINY.context)
    params, t = draw_params(config), TINY.context
    mask = jnp.zeros((1, t), bool).at[0, 5].set(True)

    def logit_sums_t(embedding_td):
        return apply(config, params | {"token_embedding": embedding_td}, jnp.arange(t)[None], mask)[0].sum(-1)

    influence_ts = np.asarray(jnp.abs(jax.jacobian(logit_sums_t)(params["token_embedding"])).max(-1))
    assert (influence_ts[:, 5] == 0).all()
    assert (np.delete(influence_ts, 5, axis=1) > 0).all()


@pytest.mark.parametrize("positions_a_call", [1, 3])
def test_cached_decoding_equals_the_full_forward(positions_a_call):
    params, tokens_bt = draw_params(TINY), draw_tokens(TINY)
    logits_btv = decode_in_calls_of(positions_a_call, TINY, params, tokens_bt)
    np.testing.assert_allclose(logits_btv, apply(TINY, params, tokens_bt), atol=2e-5)


def decode_in_calls_of(positions, config, params, tokens_bt):
    weights, cache, logits = decoding_weights(config, params), init_cache(config, 2, config.context), []
    previous_bt = jnp.pad(tokens_bt, ((0, 0), (1, 0)))[:, :-1]
    for start in range(0, config.context, positions):
        chunk_bt = previous_bt[:, start : start + positions]
        position_b = jnp.full(2, start)
        step_btv, cache = jax.jit(decode, static_argnums=0)(config, weights, chunk_bt, position_b, cache)
        logits.append(step_btv)
    return jnp.concatenate(logits, axis=1)


@pytest.mark.parametrize(
    "change", [{"unroll": 3}, {"remat": "full"}, {"remat": "dots"}, {"remat": "full", "unroll": 3}]
)
def test_unrolling_and_recomputing_change_neither_loss_nor_gradient(change):
    params, tokens_bt = draw_params(TINY), draw_tokens(TINY)

    def loss(params, config):
        logits_btv = apply(config, params, tokens_bt)
        return (logits_btv * jnp.sin(jnp.arange(logits_btv.size).reshape(logits_btv.shape))).sum()

    gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    plain, changed = gradient(params, TINY), gradient(params, dataclasses.replace(TINY, **change))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), plain, changed)


def test_recomputing_does_what_it_says():
    params, tokens_bt = draw_params(TINY), draw_tokens(TINY)

    def count(remat, operation):
        config = dataclasses.replace(TINY, remat=remat)
        gradient = jax.grad(lambda params: apply(config, params, tokens_bt).sum())
        return str(jax.make_jaxpr(gradient)(params)).count(operation)

    none, dots, attention, full = (count(remat, "dot_general") for remat in REMAT)
    assert none == dots < attention < full
    assert count("none", "rsqrt") < count("dots", "rsqrt")


def test_bfloat16_compute_stays_near_float32_and_gives_float32_logits():
    params, tokens_bt = draw_params(TINY), draw_tokens(TINY)
    config = dataclasses.replace(TINY, dtype="bfloat16")
    logits_btv = apply(config, params, tokens_bt)
    assert logits_btv.dtype == jnp.float32
    exact_btv = apply(TINY, params, tokens_bt)
    assert jnp.abs(logits_btv - exact_btv).max() < 0.1 * jnp.abs(exact_btv).max()


def test_class_logits_read_the_pooled_final_norm():
    config = dataclasses.replace(TINY, classes=5)
    params, tokens_bt = draw_params(config), draw_tokens(config)
    logits_btv, classes_bc = apply(config, params, tokens_bt, method="classify")
    features_lbd = apply(config, params, tokens_bt, method="features")
    np.testing.assert_allclose(logits_btv, apply(config, params, tokens_bt), rtol=1e-6)
    np.testing.assert_allclose(classes_bc, features_lbd[-1] @ params["class_head"], rtol=1e-5, atol=1e-5)
    for layer, features_bd in enumerate(features_lbd):
        _, classes_bc = apply(dataclasses.replace(config, head_layer=layer), params, tokens_bt, method="classify")
        np.testing.assert_allclose(classes_bc, features_bd @ params["class_head"], rtol=1e-5, atol=1e-5)


def test_initializers_have_the_released_codes_deviations():
    config = ig.ModelConfig(layers=4, width=128, heads=4, resolution=16, vocabulary=128, classes=10)
    tokens_bt = jnp.zeros((1, config.context), jnp.int32)
    params = nn.unbox(ig.ImageGPT(config).init(jax.random.key(0), tokens_bt))["params"]
    blocks = params["blocks"]
    deviations = {
        "token_embedding": (params["token_embedding"], 0.02),
        "position_embedding": (params["position_embedding"], 0.01),
        "sos": (params["sos"], 0.02),
        "query": (blocks["attention"]["query"]["kernel"], 128**-0.5),
        "key": (blocks["attention"]["key"]["kernel"], 128**-0.5),
        "value": (blocks["attention"]["value"]["kernel"], 128**-0.5),
        "out": (blocks["attention"]["out"]["kernel"], (128 * 4) ** -0.5),
        "up": (blocks["mlp"]["up"]["kernel"], 0.02),
        "down": (blocks["mlp"]["down"]["kernel"], 0.02),
    }
    for name, (leaf, deviation) in deviations.items():
        assert jnp.std(leaf) == pytest.approx(deviation, rel=5 / leaf.size**0.5), name
    assert not params["token_head"].any()
    assert not params["class_head"].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ig.ModelConfig(width=10, heads=3), "width=10 is not divisible by model.heads=3"),
        (lambda: ig.ModelConfig(objective="gpt"), "objective='gpt' is not known; choose one of ar, bert"),
        (lambda: apply(TINY, draw_params(TINY), jnp.zeros((1, 17), jnp.int32)), r"\(1, 17\) do not fit .* 16"),
        (lambda: apply(TINY, draw_params(TINY), jnp.zeros((1, 16), jnp.int32), jnp.zeros((1, 16), bool)), "no mask"),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(call, message):
    with pytest.raises(ig.InputError, match=message):
        call()


def test_bert_refuses_to_decode():
    config = dataclasses.replace(TINY, objective="bert")
    with pytest.raises(ig.InputError, match="cannot draw an image left to right; hide pixels and fill them"):
        decoding_weights(config, draw_params(config))


def test_tokens_that_the_model_does_not_know_are_refused_outside_of_jit():
    params, tokens_bt = draw_params(TINY), draw_tokens(TINY)
    for wrong, message in (
        (tokens_bt.at[0, 0].set(TINY.vocabulary), rf"but the model knows \[0, {TINY.vocabulary - 1}\]"),
        (tokens_bt.at[0, 0].set(-1), r"tokens lie in \[-1, "),
        (tokens_bt.astype(jnp.float32), "tokens are float32; expected integers"),
    ):
        with pytest.raises(ig.InputError, match=message):
            ig.ImageGPT(TINY).apply({"params": params}, wrong)
