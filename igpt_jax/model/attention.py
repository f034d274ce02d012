"""Scaled dot-product attention, causal or full: a plain reference, and a fast backend for each platform."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

# "blockwise" cuts a sequence into BLOCKS blocks, or fewer of at least SMALLEST_BLOCK positions. More blocks skip more
# of the keys that causality hides, but make matmuls smaller and compilation longer.
BLOCKS, SMALLEST_BLOCK = 8, 48

SAVED = "attention"  # the checkpoint name of what attention's backward pass reads, so that remat can keep it

LANES, LARGEST_TPU_BLOCK = 128, 512  # a block of positions on a TPU is a multiple of LANES, at most LARGEST_TPU_BLOCK

# What attention's backward pass needs: queries, keys, values, outputs, and log-sum-exp of the scores.
_Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


def attend(
    q_bthk: jax.Array, k_bthk: jax.Array, v_bthk: jax.Array, *, causal: bool, backend: str = "auto"
) -> jax.Array:
    """Averages the values of the visible positions with weights softmax(q·k / sqrt(head dim)).

    Args:
      q_bthk: queries, (b, t, h, k), any float type.
      k_bthk: keys, likewise.
      v_bthk: values, likewise.
      causal: whether position i attends to positions 0..i only; otherwise it attends to all.
      backend: a key of `BACKENDS`, which agree up to rounding; or "auto", the fastest for JAX's default platform.

    Returns:
      (b, t, h, k) in the type of `v_bthk`; the softmax is computed in float32.
    """
    if backend == "auto":
        backend = fastest_backend(jax.default_backend(), q_bthk.shape[1], q_bthk.shape[3], q_bthk.dtype)
    q_bhtk, k_bhsk, v_bhsk = (x.transpose(0, 2, 1, 3) for x in (q_bthk * q_bthk.shape[-1] ** -0.5, k_bthk, v_bthk))
    return BACKENDS[backend](q_bhtk, k_bhsk, v_bhsk, causal).transpose(0, 2, 1, 3)


def fastest_backend(platform: str, context: int, head_dim: int, dtype: DTypeLike) -> str:
    """Chooses a platform's own kernel if it supports the shapes and the dtype, and "blockwise" otherwise.

    Args:
      platform: JAX's name: "tpu", "gpu" or "cpu".
      context: positions in a sequence.
      head_dim: width of one head.
      dtype: of queries, keys and values.
    """
    if platform == "tpu" and context % LANES == 0:
        return "splash"
    if platform == "gpu" and jnp.dtype(dtype).itemsize == 2 and fits_cudnn(head_dim):
        return "cudnn"
    return "blockwise"


def fits_cudnn(head_dim: int) -> bool:
    """Whether cuDNN's kernels support a head dimension: multiples of 8 up to 128, on every GPU since Ampere."""
    return head_dim % 8 == 0 and head_dim <= 128


def plain_attention(q_bhtk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array, causal: bool) -> jax.Array:
    """Computes attention by its definition, with all (t, s) weights in memory.

    Args:
      q_bhtk: queries, already divided by sqrt(k).
      k_bhsk: keys.
      v_bhsk: values.
      causal: whether the queries, which are the last t of the s positions, attend to no later position.

    Returns:
      (b, h, t, k) in the type of the values.
    """
    scores_bhts = _scores(q_bhtk, k_bhsk, causal)
    weights_bhts = jax.nn.softmax(scores_bhts, axis=-1).astype(v_bhsk.dtype)
    return jnp.einsum("bhts,bhsk->bhtk", weights_bhts, v_bhsk)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def blockwise_attention(q_bhtk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array, causal: bool) -> jax.Array:
    """Computes `plain_attention` in blocks of queries, which skip the keys that causality hides.

    The gradient recomputes the weights from the saved log-sum-exp, as flash attention does, so nothing of size (t, s)
    is kept for longer than one block takes.
    """
    return _blockwise_forward(q_bhtk, k_bhsk, v_bhsk, causal)[0]


def splash_attention(
    q_bhtk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array, causal: bool, interpret: bool = False
) -> jax.Array:
    """Computes `plain_attention` with the Pallas TPU kernel that ships with JAX.

    On a mesh, each device attends within its own images and heads.

    Args:
      q_bhtk: queries, already divided by sqrt(k); t a multiple of 128, any k.
      k_bhsk: keys, with s = t.
      v_bhsk: values, with s = t.
      causal: whether position i attends to positions 0..i only.
      interpret: runs the kernel without a TPU, slowly.
    """
    # Imported here, because this backend alone needs it.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask

    context = q_bhtk.shape[2]
    block = splash_block(context)
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    block_sizes: dict[str, Any] = {f"block_{name}": block for name in names}
    mask = (splash_attention_mask.CausalMask if causal else splash_attention_mask.FullMask)((context, context))

    def on_one_device(q_bhtk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array) -> jax.Array:
        kernel = splash_attention_kernel.make_splash_mha_single_device(
            splash_attention_mask.MultiHeadMask([mask] * q_bhtk.shape[1]),
            block_sizes=splash_attention_kernel.BlockSizes(**block_sizes),
            residual_checkpoint_name=SAVED,
            interpret=interpret,
        )
        return jax.vmap(kernel)(q_bhtk, k_bhsk, v_bhsk)

    # XLA cannot partition a Pallas kernel by itself: shard_map runs it on each device's shard.
    if jax.sharding.get_abstract_mesh().empty:
        return on_one_device(q_bhtk, k_bhsk, v_bhsk)
    spec = nn.logical_to_mesh_axes(("batch", "heads", None, None))
    return jax.shard_map(on_one_device, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)(q_bhtk, k_bhsk, v_bhsk)


def splash_block(context: int) -> int:
    """The block size of the TPU kernel, in positions: the largest multiple of 128 up to 512 that divides the context.

    Args:
      context: positions in a sequence; a multiple of 128.
    """
    return max(n for n in range(LANES, LARGEST_TPU_BLOCK + 1, LANES) if context % n == 0)


def cudnn_attention(q_bhtk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array, causal: bool) -> jax.Array:
    """Computes `plain_attention` with cuDNN's flash attention, on NVIDIA GPUs, in bfloat16 or float16."""
    positions_first = [x.transpose(0, 2, 1, 3) for x in (q_bhtk, k_bhsk, v_bhsk)]
    mixed_bthk = jax.nn.dot_product_attention(*positions_first, scale=1.0, is_causal=causal, implementation="cudnn")
    return mixed_bthk.transpose(0, 2, 1, 3)


def saves_attention(primitive: Any, *inputs: Any, **params: Any) -> bool:
    """A remat policy that keeps what attention's backward pass needs: values named `SAVED`, and cuDNN's outputs."""
    is_named = jax.checkpoint_policies.save_only_these_names(SAVED)
    return primitive.name.startswith("dot_product_attention_fwd") or is_named(primitive, *inputs, **params)


def cached_attention(q_bhtk: jax.Array, k_bhks: jax.Array, v_bhsk: jax.Array, position_b: jax.Array) -> jax.Array:
    """Attends from t new positions of each image to the cache, whose later positions are ignored.

    Args:
      q_bhtk: queries, already divided by sqrt(k), at positions `position_b` to `position_b` + t - 1.
      k_bhks: cached keys, those of the new positions included. Positions are the last axis, with which the matmul of a
        few queries takes a third of the time on a CPU.
      v_bhsk: cached values, those of the new positions included.
      position_b: (b,) integers, each image's first new position.

    Returns:
      (b, h, t, k) in the type of the cache; the softmax is computed in float32.
    """
    scores_bhts = jnp.einsum("bhtk,bhks->bhts", q_bhtk, k_bhks, preferred_element_type=jnp.float32)
    t, s = scores_bhts.shape[-2:]
    last_visible_bt1 = position_b[:, None, None] + jnp.arange(t)[None, :, None]
    visible_bts = jnp.arange(s)[None, None] <= last_visible_bt1
    weights_bhts = jax.nn.softmax(jnp.where(visible_bts[:, None], scores_bhts, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bhsk->bhtk", weights_bhts.astype(v_bhsk.dtype), v_bhsk)


def _scores(q_bhtk: jax.Array, k_bhsk: jax.Array, causal: bool) -> jax.Array:
    """Computes float32 scores (b, h, t, s); the queries are the last t of the s positions."""
    scores_bhts = jnp.einsum("bhtk,bhsk->bhts", q_bhtk, k_bhsk, preferred_element_type=jnp.float32)
    if not causal:
        return scores_bhts
    t, s = scores_bhts.shape[-2:]
    return jnp.where(jnp.tri(t, s, s - t, dtype=bool)[None, None], scores_bhts, -jnp.inf)


def _blocks(context: int) -> list[tuple[int, int]]:
    """Returns (start, stop) of each block of positions."""
    size = max(SMALLEST_BLOCK, math.ceil(context / BLOCKS))
    return [(start, min(start + size, context)) for start in range(0, context, size)]


def _blockwise_forward(
    q_bhtk: jax.Array, k_bhsk: jax.Array, v_bhsk: jax.Array, causal: bool
) -> tuple[jax.Array, _Residuals]:
    context, outs, lses = q_bhtk.shape[2], [], []
    for start, stop in _blocks(context):
        visible = slice(0, stop if causal else context)
        scores_bhts = _scores(q_bhtk[:, :, start:stop], k_bhsk[:, :, visible], causal)
        # The softmax is spelled out, because the backward pass needs its log-sum-exp. Subtracting the maximum keeps exp
        # from overflowing.
        max_bht1 = scores_bhts.max(-1, keepdims=True)
        weights_bhts = jnp.exp(scores_bhts - max_bht1)
        sum_bht1 = weights_bhts.sum(-1, keepdims=True)
        out_bhtk = jnp.einsum("bhts,bhsk->bhtk", weights_bhts.astype(v_bhsk.dtype), v_bhsk[:, :, visible])
        outs.append((out_bhtk / sum_bht1).astype(v_bhsk.dtype))
        lses.append(max_bht1 + jnp.log(sum_bht1))
    out_bhtk = checkpoint_name(jnp.concatenate(outs, axis=2), SAVED)
    lse_bht1 = checkpoint_name(jnp.concatenate(lses, axis=2), SAVED)
    return out_bhtk, (q_bhtk, k_bhsk, v_bhsk, out_bhtk, lse_bht1)


def _blockwise_backward(
    causal: bool, residuals: _Residuals, dout_bhtk: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Computes the gradients of queries, keys and values, block by block of keys.

    Scores are (s, t) here, keys before queries: in this layout XLA is fast for every matmul.
    """
    q_bhtk, k_bhsk, v_bhsk, out_bhtk, lse_bht1 = residuals
    dtype, context = v_bhsk.dtype, q_bhtk.shape[2]
    # The gradient of a softmax subtracts sum(weights * dweights) from dweights. That sum equals dout·out, which needs
    # no weights (Dao et al. 2022, arXiv:2205.14135, appendix B.2).
    delta_bht1 = jnp.sum(dout_bhtk.astype(jnp.float32) * out_bhtk, axis=-1, keepdims=True)
    lse_bh1t, delta_bh1t = lse_bht1.swapaxes(2, 3), delta_bht1.swapaxes(2, 3)
    dq_bhtk, dks, dvs = jnp.zeros(q_bhtk.shape, jnp.float32), [], []
    for start, stop in _blocks(context):
        attending = slice(start if causal else 0, context)
        q_block, dout_block = q_bhtk[:, :, attending], dout_bhtk[:, :, attending]
        k_block, v_block = k_bhsk[:, :, start:stop], v_bhsk[:, :, start:stop]
        scores_bhst = jnp.einsum("bhsk,bhtk->bhst", k_block, q_block, preferred_element_type=jnp.float32)
        weights_bhst = jnp.exp(scores_bhst - lse_bh1t[..., attending])
        if causal:
            weights_bhst = jnp.triu(weights_bhst)
        dweights_bhst = jnp.einsum("bhsk,bhtk->bhst", v_block, dout_block, preferred_element_type=jnp.float32)
        dscores_bhst = (weights_bhst * (dweights_bhst - delta_bh1t[..., attending])).astype(dtype)
        dvs.append(jnp.einsum("bhst,bhtk->bhsk", weights_bhst.astype(dtype), dout_block))
        dks.append(jnp.einsum("bhst,bhtk->bhsk", dscores_bhst, q_block))
        dq_block = jnp.einsum("bhst,bhsk->bhkt", dscores_bhst, k_block).swapaxes(2, 3)
        dq_bhtk = dq_bhtk.at[:, :, attending].add(dq_block)
    return dq_bhtk.astype(dtype), jnp.concatenate(dks, axis=2), jnp.concatenate(dvs, axis=2)


blockwise_attention.defvjp(_blockwise_forward, _blockwise_backward)

BACKENDS: dict[str, Callable[[jax.Array, jax.Array, jax.Array, bool], jax.Array]] = {
    "plain": plain_attention,
    "blockwise": blockwise_attention,
    "splash": splash_attention,
    "cudnn": cudnn_attention,
}
