"""The blockwise attention against the plain definition, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igpt_jax.model.attention import BLOCKS, SMALLEST_BLOCK, attend, cached_attention


def arrays(context, count=3):
    keys = jax.random.split(jax.random.key(0), count)
    return [jax.random.normal(key, (2, context, 3, 8)) for key in keys]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("context", [1, SMALLEST_BLOCK, 2 * SMALLEST_BLOCK + 1, BLOCKS * (SMALLEST_BLOCK + 2) + 3])
def test_blockwise_equals_plain_in_values_and_gradients(causal, context):
    q, k, v, weight = arrays(context, count=4)

    def loss(backend, *qkv):
        return (attend(*qkv, causal=causal, backend=backend) * weight).sum()

    for backend_a, backend_b in (("blockwise", "plain"), ("auto", "plain")):
        a = jax.value_and_grad(loss, (1, 2, 3))(backend_a, q, k, v)
        b = jax.value_and_grad(loss, (1, 2, 3))(backend_b, q, k, v)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4), a, b)


def test_blockwise_keeps_bfloat16_and_stays_near_float32():
    q, k, v = arrays(200)
    exact = attend(q, k, v, causal=True, backend="plain")
    half = attend(*(x.astype(jnp.bfloat16) for x in (q, k, v)), causal=True, backend="blockwise")
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), exact, atol=0.05)


def test_cached_attention_ignores_the_cache_beyond_its_position():
    q, k, v = arrays(12)
    full = attend(q, k, v, causal=True, backend="plain")
    poisoned = [x.at[:, 10:].set(1e3).transpose(0, 2, 1, 3) for x in (k, v)]
    new = cached_attention(q[:, 7:10].transpose(0, 2, 1, 3) * 8**-0.5, *poisoned, 7)
    np.testing.assert_allclose(new.transpose(0, 2, 1, 3), full[:, 7:10], atol=1e-5)
