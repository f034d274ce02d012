"""The quantizers, against their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igpt_jax.codes import quantize
from igpt_jax.codes.quantize import Codebook, first_codebook, fsq_values

LEVELS = (5, 4, 2)
fsq = jax.jit(quantize.fsq, static_argnums=1)
vq = jax.jit(quantize.vq)
update_codebook = jax.jit(quantize.update_codebook, static_argnames="decay")


def test_every_code_is_the_code_of_its_own_values():
    codes = jnp.arange(5 * 4 * 2)
    values = fsq_values(codes, LEVELS)
    points = itertools.product(*(np.linspace(-1, 1, level) for level in reversed(LEVELS)))
    np.testing.assert_allclose(values, [point[::-1] for point in points], atol=1e-6)
    latents = jnp.arctanh(values.clip(-0.999999, 0.999999))
    rounded, again = fsq(latents, LEVELS)
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_allclose(rounded, values, atol=1e-6)


def test_values_are_rounded_to_the_nearest_and_the_gradient_is_that_of_tanh():
    latents = jnp.array(np.random.default_rng(0).normal(0, 2, (50, 3)), jnp.float32)
    rounded, _ = fsq(latents, LEVELS)
    for dimension, level in enumerate(LEVELS):
        grid, bounded = np.linspace(-1, 1, level), np.tanh(np.asarray(latents[:, dimension], np.float64))
        nearest = grid[np.abs(bounded[:, None] - grid).argmin(1)]
        np.testing.assert_allclose(rounded[:, dimension], nearest, atol=1e-6)
    slope = jax.grad(lambda x: fsq(x, LEVELS)[0].sum())(latents)
    np.testing.assert_allclose(slope, 1 - jnp.tanh(latents) ** 2, atol=1e-6)


def test_vq_takes_the_nearest_vector_and_passes_the_gradient_on():
    rng = np.random.default_rng(0)
    latents, vectors = rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(9, 6)).astype(np.float32)
    values, codes = vq(jnp.array(latents), jnp.array(vectors))
    expected = ((latents[:, None].astype(np.float64) - vectors) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(values, vectors[expected], atol=1e-6)
    weights = jnp.array(rng.normal(size=(40, 6)), jnp.float32)
    slope = jax.grad(lambda x: (vq(x, jnp.array(vectors))[0] * weights).sum())(jnp.array(latents))
    np.testing.assert_allclose(slope, weights)


def test_a_code_vector_becomes_the_mean_of_the_latents_that_choose_it():
    latents = jnp.array([[1.0, 0.0], [3.0, 0.0], [0.0, 7.0]])
    codebook = Codebook(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.ones(2))
    for _ in range(400):
        _, codes = vq(latents, codebook.vectors_kd)
        codebook = update_codebook(codebook, latents, codes, jax.random.key(0), decay=0.9)
    np.testing.assert_allclose(codebook.vectors_kd, [[2.0, 0.0], [0.0, 7.0]], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_vectors_that_nobody_chooses_are_replaced_until_all_are_used(seed):
    clusters = np.random.default_rng(seed).normal(size=(16, 4)) * 10
    latents = jnp.array(np.repeat(clusters, 4, axis=0), jnp.float32)
    codebook = first_codebook(jax.random.key(seed), 16, 4)
    assert len(np.unique(vq(latents, codebook.vectors_kd)[1])) < 16
    for step in range(600):
        _, codes = vq(latents, codebook.vectors_kd)
        codebook = update_codebook(codebook, latents, codes, jax.random.key(step), decay=0.8)
    assert len(np.unique(vq(latents, codebook.vectors_kd)[1])) >= 14
