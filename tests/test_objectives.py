"""The losses against their definitions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import ObjectiveConfig, OptimizerConfig, ParallelConfig
from igpt_jax.objectives import autoregressive, bert, joint, objective_function
from igpt_jax.parallel.mesh import make_mesh, put_batch
from igpt_jax.train.optimizer import adam, learning_rate_schedule
from igpt_jax.train.state import init_params, init_state
from igpt_jax.train.step import jit_train_step
from tests import reference

TINY = ig.ModelConfig(layers=2, width=16, heads=2, resolution=4, vocabulary=9)
jit = functools.partial(jax.jit, static_argnums=0)  # of functions whose first argument is the network


def tokens(batch=8, seed=0):
    return np.random.default_rng(seed).integers(0, TINY.vocabulary, (batch, TINY.context)).astype(np.int32)


def test_the_first_loss_is_ln_v():
    mesh = make_mesh(ParallelConfig(data=1), jax.devices()[:1])
    params = init_params(ig.ImageGPT(TINY), 0, mesh)
    loss, _ = jit(autoregressive)(ig.ImageGPT(TINY), params, {"tokens": tokens()}, jax.random.key(0))
    assert loss == pytest.approx(np.log(TINY.vocabulary), rel=1e-6)


def test_the_loss_is_the_mean_negative_log_likelihood_of_the_references_logits():
    params = trained_somewhere(TINY)
    loss, metrics = jit(autoregressive)(ig.ImageGPT(TINY), params, {"tokens": tokens(batch=2)}, jax.random.key(0))
    nats = []
    for tokens_t in tokens(batch=2):
        logits_tv, _ = reference.forward(params, tokens_t, TINY.heads, "ar")
        nats += [-np.log(reference.softmax(logits_tv[i])[token]) for i, token in enumerate(tokens_t)]
    assert loss == pytest.approx(np.mean(nats), rel=1e-5)
    assert metrics["nats_per_token"] == loss


def trained_somewhere(config):
    """Parameters away from their start, where the heads are no longer zero."""
    mesh = make_mesh(ParallelConfig(data=1), jax.devices()[:1])
    params = init_params(ig.ImageGPT(config), 0, mesh)
    return jax.tree.map(lambda x: x + 0.3 * np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape), params)


def test_the_bert_loss_is_the_mean_over_images_of_the_mean_over_hidden_positions():
    config, rng = dataclasses.replace(TINY, objective="bert"), jax.random.key(3)
    params, batch = trained_somewhere(config), {"tokens": tokens(batch=4)}
    loss, metrics = jit(bert)(ig.ImageGPT(config), params, batch, rng, mask_rate=0.15)
    mask_bt = np.asarray(jax.random.bernoulli(rng, 0.15, (4, TINY.context)))
    nats = []
    for tokens_t, mask_t in zip(batch["tokens"], mask_bt, strict=True):
        logits_tv, _ = reference.forward(params, tokens_t, TINY.heads, "bert", mask_t)
        nats.append(np.mean([-np.log(reference.softmax(logits_tv[i])[tokens_t[i]]) for i in np.flatnonzero(mask_t)]))
    assert loss == pytest.approx(np.mean(nats), rel=1e-5)
    assert metrics["nats_per_token"] == loss


def test_an_image_of_which_nothing_is_hidden_does_not_count():
    config = dataclasses.replace(TINY, objective="bert")
    params = init_params(ig.ImageGPT(config), 0, make_mesh(ParallelConfig(data=1), jax.devices()[:1]))
    rng = jax.random.key(0)
    hidden_b = np.asarray(jax.random.bernoulli(rng, 0.02, (8, TINY.context))).any(axis=1)
    assert 0 < hidden_b.sum() < 8
    loss, _ = jit(bert)(ig.ImageGPT(config), params, {"tokens": tokens()}, rng, mask_rate=0.02)
    assert loss == pytest.approx(np.log(TINY.vocabulary), rel=1e-6)
    loss, _ = jit(bert)(ig.ImageGPT(config), params, {"tokens": tokens()}, rng, mask_rate=1e-9)
    assert loss == 0


def test_bert_hides_fresh_positions_at_the_configs_rate_in_every_step():
    config = dataclasses.replace(TINY, objective="bert", layers=1)
    model, mesh = ig.ImageGPT(config), make_mesh(ParallelConfig(data=1), jax.devices()[:1])
    options = OptimizerConfig(learning_rate=1e-2)
    optimizer = adam(options, learning_rate_schedule(options, steps=20, steps_per_epoch=1))
    state, objective = init_state(model, optimizer, 0, mesh), objective_function(ObjectiveConfig("bert", mask_rate=0.3))
    masks = []

    class Watched:
        """The model, which also keeps the masks that it is given."""

        def apply(self, variables, tokens_bt, mask_bt):
            jax.debug.callback(lambda mask_bt: masks.append(np.asarray(mask_bt)), mask_bt)
            return model.apply(variables, tokens_bt, mask_bt)

    step = jit_train_step(model, optimizer, lambda _, *rest: objective(Watched(), *rest), 0, mesh)
    batch, losses = put_batch({"tokens": tokens(64)}, mesh), []
    for _ in range(20):
        state, metrics = step(state, batch)
        losses.append(float(metrics["nats_per_token"]))
    assert losses[0] == pytest.approx(np.log(TINY.vocabulary), rel=1e-6)
    assert losses[-1] < 0.99 * losses[0]
    jax.effects_barrier()
    rates = np.mean(masks, axis=(1, 2))  # of 1,024 positions, whose deviation is 0.014
    assert len({mask_bt.tobytes() for mask_bt in masks}) == 20
    assert abs(rates - 0.3).max() < 0.07


def test_every_parameter_gets_a_gradient_after_a_few_steps():
    config = dataclasses.replace(TINY, use_bias=True)
    model, mesh = ig.ImageGPT(config), make_mesh(ParallelConfig(data=1), jax.devices()[:1])
    options = OptimizerConfig(learning_rate=1e-2)
    optimizer = adam(options, learning_rate_schedule(options, steps=10, steps_per_epoch=1))
    state = init_state(model, optimizer, 0, mesh)
    step = jit_train_step(model, optimizer, autoregressive, 0, mesh)
    batch = put_batch({"tokens": tokens()}, mesh)
    for _ in range(3):
        state, _ = step(state, batch)
    gradient, _ = jit(jax.grad(autoregressive, argnums=1, has_aux=True))(model, state.params, batch, jax.random.key(0))
    # The bias of the keys shifts every score of a query alike, which softmax ignores: its gradient is zero.
    key_bias = gradient["blocks"]["attention"]["key"].pop("bias")
    np.testing.assert_allclose(key_bias, 0, atol=1e-7)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        # Each layer by itself, and each row of what is not indexed by a token that may be absent.
        for layer in leaf if "blocks" in jax.tree_util.keystr(path) else [leaf]:
            assert jnp.abs(layer).max() > 1e-7, jax.tree_util.keystr(path)


@pytest.mark.parametrize("heads", [{"tied_head": True}, {"zero_heads": False}])
def test_heads_that_are_not_zero_pass_a_gradient_to_every_parameter_at_once(heads):
    config = dataclasses.replace(TINY, **heads)
    params = init_params(ig.ImageGPT(config), 0, make_mesh(ParallelConfig(), jax.devices()[:1]))
    gradient, _ = jit(jax.grad(autoregressive, argnums=1, has_aux=True))(
        ig.ImageGPT(config), params, {"tokens": tokens()}, jax.random.key(0)
    )
    for path, leaf in jax.tree.leaves_with_path(gradient):
        for layer in leaf if "blocks" in jax.tree_util.keystr(path) else [leaf]:
            assert jnp.abs(layer).max() > 1e-8, jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", ["ar", "bert"])
def test_the_joint_loss_is_the_weighted_sum_of_the_references_two_losses(name):
    config, rng = dataclasses.replace(TINY, objective=name, classes=5), jax.random.key(3)
    params, batch = trained_somewhere(config), {"tokens": tokens(batch=4), "label": np.array([4, 0, 2, 2])}
    mask_bt = np.asarray(jax.random.bernoulli(rng, 0.3, (4, TINY.context)))
    nats, class_nats, right = [], [], []
    for tokens_t, mask_t, label in zip(batch["tokens"], mask_bt, batch["label"], strict=True):
        logits_tv, features_ld = reference.forward(params, tokens_t, TINY.heads, name, mask_t)
        counted = np.flatnonzero(mask_t) if name == "bert" else range(TINY.context)
        nats.append(np.mean([-np.log(reference.softmax(logits_tv[i])[tokens_t[i]]) for i in counted]))
        chances_c = reference.softmax(features_ld[-1] @ np.asarray(params["class_head"], np.float64))
        class_nats.append(-np.log(chances_c[label]))
        right.append(chances_c.argmax() == label)
    for weights in ((0.25, 3), (0, 1)):
        objective = functools.partial(joint, ig.ImageGPT(config), config=ObjectiveConfig(name, 0.3, *weights))
        loss, metrics = jax.jit(objective)(params, batch, rng)
        assert metrics["nats_per_token"] == pytest.approx(np.mean(nats), rel=1e-5)
        assert metrics["class_nats"] == pytest.approx(np.mean(class_nats), rel=1e-5)
        assert metrics["accuracy"] == 100 * np.mean(right)
        assert loss == pytest.approx(weights[0] * np.mean(nats) + weights[1] * np.mean(class_nats), rel=1e-5)


@pytest.mark.parametrize(
    ("weights", "head_layer", "untouched"),
    [
        ((1, 1), -1, []),
        ((0, 1), -1, ["token_head"]),
        ((0, 1), 1, ["token_head", "final_norm/gain", "blocks/1/mlp/up/kernel"]),
    ],
)
def test_every_parameter_that_a_weighted_loss_reads_gets_a_gradient(weights, head_layer, untouched):
    config = dataclasses.replace(TINY, classes=5, head_layer=head_layer)
    params, batch = trained_somewhere(config), {"tokens": tokens(), "label": np.arange(8) % 5}
    objective = objective_function(ObjectiveConfig("ar", 0.15, *weights))
    gradient, _ = jit(jax.grad(objective, argnums=1, has_aux=True))(
        ig.ImageGPT(config), params, batch, jax.random.key(0)
    )
    blocks = gradient.pop("blocks")
    gradient["blocks"] = {str(i): jax.tree.map(lambda x, i=i: x[i], blocks) for i in range(TINY.layers)}
    norms = {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(jnp.abs(leaf).max())
        for path, leaf in jax.tree.leaves_with_path(gradient)
    }
    for name in untouched:
        assert norms[name] == 0
    if head_layer == -1 or weights[0]:
        assert all(norm > 1e-7 for name, norm in norms.items() if name not in untouched)
