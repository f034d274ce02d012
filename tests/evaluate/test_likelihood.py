"""Likelihoods of every pixel against the equations."""

import dataclasses

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.evaluate.forward import mean_nats
from igpt_jax.evaluate.likelihood import HIDDEN_PARTS, likelihood
from igpt_jax.parallel.mesh import make_mesh
from tests import reference
from tests.model.test_image_gpt import draw_params

AR = ig.ModelConfig(layers=2, width=16, heads=2, resolution=4, vocabulary=5)
BERT = dataclasses.replace(AR, objective="bert")
TOKENS = np.random.default_rng(0).integers(0, 5, (5, 16)).astype(np.int32)
MESH = make_mesh(ParallelConfig(), jax.devices()[:2])


def test_nats_are_those_of_the_references_softmax_and_their_mean_is_the_held_out_loss():
    params = draw_params(AR)
    nats_bt = likelihood(ig.ImageGPT(AR), params, TOKENS, mesh=MESH, batch_size=3)
    for tokens_t, nats_t in zip(TOKENS, nats_bt, strict=True):
        logits_tv, _ = reference.forward(params, tokens_t, AR.heads, "ar")
        expected_t = [-np.log(reference.softmax(logits_tv[i])[token]) for i, token in enumerate(tokens_t)]
        np.testing.assert_allclose(nats_t, expected_t, rtol=1e-4)
    assert mean_nats(ig.ImageGPT(AR), params, [{"tokens": TOKENS}], MESH) == pytest.approx(nats_bt.mean(), rel=1e-5)


def test_a_bert_model_predicts_every_pixel_once_from_the_other_parts():
    params = draw_params(BERT)
    nats_bt = likelihood(ig.ImageGPT(BERT), params, TOKENS, mesh=MESH, seed=3)
    part_t = np.random.default_rng(3).permutation(16) % HIDDEN_PARTS
    expected_bt = np.zeros(TOKENS.shape)
    for part in range(HIDDEN_PARTS):
        for image, tokens_t in enumerate(TOKENS):
            logits_tv, _ = reference.forward(params, tokens_t, BERT.heads, "bert", part_t == part)
            for i in np.flatnonzero(part_t == part):
                expected_bt[image, i] = -np.log(reference.softmax(logits_tv[i])[tokens_t[i]])
    np.testing.assert_allclose(nats_bt, expected_bt, rtol=1e-4)
