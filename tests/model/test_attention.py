"""Every fast attention against the plain definition, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igpt_jax.config import ParallelConfig
from igpt_jax.model.attention import (
    BLOCKS,
    SMALLEST_BLOCK,
    attend,
    cached_attention,
    fastest_backend,
    plain_attention,
    splash_attention,
)
from igpt_jax.parallel.mesh import logical_axes, make_mesh


def arrays(context, count=3):
    keys = jax.random.split(jax.random.key(0), count)
    return [jax.random.normal(key, (2, context, 3, 8)) for key in keys]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("context", [1, SMALLEST_BLOCK, 2 * SMALLEST_BLOCK + 1, BLOCKS * (SMALLEST_BLOCK + 2) + 3])
def test_blockwise_equals_plain_in_values_and_gradients(causal, context):
    q, k, v, weight = arrays(context, count=4)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.value_and_grad, argnums=(1, 2, 3))
    def loss_and_gradient(backend, *qkv):
        return (attend(*qkv, causal=causal, backend=backend) * weight).sum()

    plain = loss_and_gradient("plain", q, k, v)
    for backend in ("blockwise", "auto"):
        fast = loss_and_gradient(backend, q, k, v)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), fast, plain)


def test_blockwise_keeps_bfloat16_and_stays_near_float32():
    q, k, v = arrays(200)
    exact = attend(q, k, v, causal=True, backend="plain")
    blockwise = jax.jit(functools.partial(attend, causal=True, backend="blockwise"))
    half = blockwise(*(x.astype(jnp.bfloat16) for x in (q, k, v)))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.05)


def test_cached_attention_ignores_the_cache_beyond_its_position():
    q, k, v = arrays(12)
    full = attend(q, k, v, causal=True, backend="plain")
    k, v = (x.at[:, 10:].set(1e3) for x in (k, v))
    q_bhtk, k_bhks, v_bhsk = q[:, 7:10].transpose(0, 2, 1, 3), k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    new = cached_attention(q_bhtk * 8**-0.5, k_bhks, v_bhsk, jnp.full(len(q), 7))
    np.testing.assert_allclose(new.transpose(0, 2, 1, 3), full[:, 7:10], atol=1e-5)


# (positions, head dim): iGPT-S's, L's and XL's head dims; 640 positions are five blocks of the kernel, the others one.
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(
    ("context", "head_dim"),
    [
        (128, 64),
        (640, 96),
        (256, 128),
        *(pytest.param(*shape, marks=pytest.mark.slow) for shape in [(1024, 64), (2304, 96), (4096, 128)]),
    ],
)
def test_the_tpu_kernel_equals_plain_in_values_and_gradients(context, head_dim, causal):
    keys = jax.random.split(jax.random.key(0), 4)
    *qkv, weight = (jax.random.normal(key, (1, 2, context, head_dim)) for key in keys)
    kernel = functools.partial(splash_attention, interpret=True)

    def loss(function, q, k, v):
        return (function(q * head_dim**-0.5, k, v, causal) * weight).sum()

    a, b = (jax.jit(jax.value_and_grad(functools.partial(loss, f), (0, 1, 2)))(*qkv) for f in (kernel, plain_attention))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-3), a, b)


def test_on_a_mesh_the_tpu_kernel_sees_its_own_images_and_heads():
    mesh = make_mesh(ParallelConfig(2, 4))
    qkv = [jax.random.normal(key, (4, 4, 128, 8)) for key in jax.random.split(jax.random.key(0), 3)]

    @jax.jit
    def attend_on_mesh(*qkv):
        with logical_axes(mesh):
            return splash_attention(*qkv, True, interpret=True)

    sharded = jax.device_put(qkv, jax.NamedSharding(mesh, jax.P("data", "model")))
    mixed = attend_on_mesh(*sharded)
    assert mixed.addressable_shards[0].data.shape == (2, 1, 128, 8)
    np.testing.assert_allclose(mixed, plain_attention(*qkv, True), atol=1e-5)


@pytest.mark.parametrize(
    ("platform", "context", "head_dim", "dtype", "backend"),
    [
        ("tpu", 2304, 64, "bfloat16", "splash"),
        ("tpu", 144, 64, "float32", "blockwise"),
        ("gpu", 1024, 96, "bfloat16", "cudnn"),
        ("gpu", 1024, 20, "bfloat16", "blockwise"),
        ("gpu", 1024, 256, "bfloat16", "blockwise"),
        ("gpu", 1024, 64, "float32", "blockwise"),
        ("cpu", 1024, 64, "float32", "blockwise"),
    ],
)
def test_every_platform_gets_the_kernel_that_takes_its_input(platform, context, head_dim, dtype, backend):
    assert fastest_backend(platform, context, head_dim, dtype) == backend
