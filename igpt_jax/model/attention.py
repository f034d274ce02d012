"""Scaled dot-product attention, causal or full: a plain reference, a fast blockwise form, and one step of decoding."""

import functools

import jax
import jax.numpy as jnp

BLOCK = 128  # queries handled at once; 64 and 256 measured slower on CPUs


def attend(
    q_bthk: jax.Array, k_bthk: jax.Array, v_bthk: jax.Array, *, causal: bool, backend: str = "auto"
) -> jax.Array:
    """Mixes the values of the visible positions by softmax(q·k / sqrt(head dim)).

    Args:
      q_bthk, k_bthk, v_bthk: (b, t, h, k), any float type.
      causal: position i sees positions 0..i; otherwise all.
      backend: "plain", "blockwise", or "auto": blockwise, which agrees with plain to rounding.
    Returns:
      (b, t, h, k) in the type of `v_bthk`; softmax in float32.
    """
    function = plain_attention if backend == "plain" else blockwise_attention
    heads_first = [x.transpose(0, 2, 1, 3) for x in (q_bthk * q_bthk.shape[-1] ** -0.5, k_bthk, v_bthk)]
    return function(*heads_first, causal).transpose(0, 2, 1, 3)


def plain_attention(q_bhtk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array, causal: bool) -> jax.Array:
    """The definition, with all (t, s) weights in memory; queries come scaled.  Returns (b, h, t, k)."""
    scores_bhts = _scores(q_bhtk, k_bhsk, causal)
    weights_bhts = jax.nn.softmax(scores_bhts, axis=-1).astype(v_bhsk.dtype)
    return jnp.einsum("bhts,bhsk->bhtk", weights_bhts, v_bhsk)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def blockwise_attention(q_bhtk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array, causal: bool) -> jax.Array:
    """Equals `plain_attention` in blocks of queries, which skip the keys that causality hides.

    The gradient recomputes the weights from the saved log-sum-exp, so nothing of size (t, s) outlives its block.
    """
    return _blockwise_forward(q_bhtk, k_bhsk, v_bhsk, causal)[0]


def cached_attention(q_bthk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array, position: jax.Array) -> jax.Array:
    """Lets t new queries at `position`.. see the cached keys up to their own; the rest of the cache is ignored.

    Returns (b, t, h, k) in the type of the cache.
    """
    scores_bhts = jnp.einsum("bthk,bhsk->bhts", q_bthk, k_bhsk, preferred_element_type=jnp.float32)
    t, s = scores_bhts.shape[-2:]
    visible_ts = jnp.arange(s)[None] <= position + jnp.arange(t)[:, None]
    weights_bhts = jax.nn.softmax(jnp.where(visible_ts[None, None], scores_bhts, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bhsk->bthk", weights_bhts.astype(v_bhsk.dtype), v_bhsk)


def _scores(q_bhtk, k_bhsk, causal):
    """float32 products; the queries are the last t of the s positions."""
    scores_bhts = jnp.einsum("bhtk,bhsk->bhts", q_bhtk, k_bhsk, preferred_element_type=jnp.float32)
    if not causal:
        return scores_bhts
    t, s = scores_bhts.shape[-2:]
    return jnp.where(jnp.tri(t, s, s - t, dtype=bool)[None, None], scores_bhts, -jnp.inf)


def _query_blocks(context, causal):
    """(first query, past the last, keys seen) of each block."""
    for start in range(0, context, BLOCK):
        stop = min(start + BLOCK, context)
        yield start, stop, stop if causal else context


def _blockwise_forward(q_bhtk, k_bhsk, v_bhsk, causal):
    outs, lses = [], []
    for start, stop, seen in _query_blocks(q_bhtk.shape[2], causal):
        scores_bhts = _scores(q_bhtk[:, :, start:stop], k_bhsk[:, :, :seen], causal)
        max_bht1 = scores_bhts.max(-1, keepdims=True)
        weights_bhts = jnp.exp(scores_bhts - max_bht1)
        sum_bht1 = weights_bhts.sum(-1, keepdims=True)
        out_bhtk = jnp.einsum("bhts,bhsk->bhtk", weights_bhts.astype(v_bhsk.dtype), v_bhsk[:, :, :seen])
        outs.append((out_bhtk / sum_bht1).astype(v_bhsk.dtype))
        lses.append(max_bht1 + jnp.log(sum_bht1))
    out_bhtk, lse_bht1 = jnp.concatenate(outs, axis=2), jnp.concatenate(lses, axis=2)
    return out_bhtk, (q_bhtk, k_bhsk, v_bhsk, out_bhtk, lse_bht1)


def _blockwise_backward(causal, saved, dout_bhtk):
    q_bhtk, k_bhsk, v_bhsk, out_bhtk, lse_bht1 = saved
    dtype = v_bhsk.dtype
    delta_bht1 = jnp.sum(dout_bhtk.astype(jnp.float32) * out_bhtk, axis=-1, keepdims=True)
    dqs, dk_bhsk, dv_bhsk = [], jnp.zeros(k_bhsk.shape, jnp.float32), jnp.zeros(v_bhsk.shape, jnp.float32)
    for start, stop, seen in _query_blocks(q_bhtk.shape[2], causal):
        block = (slice(None), slice(None), slice(start, stop))
        weights_bhts = jnp.exp(_scores(q_bhtk[block], k_bhsk[:, :, :seen], causal) - lse_bht1[block])
        dweights_bhts = jnp.einsum(
            "bhtk,bhsk->bhts", dout_bhtk[block], v_bhsk[:, :, :seen], preferred_element_type=jnp.float32
        )
        dscores_bhts = (weights_bhts * (dweights_bhts - delta_bht1[block])).astype(dtype)
        dqs.append(jnp.einsum("bhts,bhsk->bhtk", dscores_bhts, k_bhsk[:, :, :seen]))
        dk_bhsk = dk_bhsk.at[:, :, :seen].add(jnp.einsum("bhts,bhtk->bhsk", dscores_bhts, q_bhtk[block]))
        dv_bhsk = dv_bhsk.at[:, :, :seen].add(
            jnp.einsum("bhts,bhtk->bhsk", weights_bhts.astype(dtype), dout_bhtk[block])
        )
    return jnp.concatenate(dqs, axis=2), dk_bhsk.astype(dtype), dv_bhsk.astype(dtype)


blockwise_attention.defvjp(_blockwise_forward, _blockwise_backward)
