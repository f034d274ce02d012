"""The pre-norm residual stack: norms without bias, attention, MLP, and a scan over the blocks."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from igpt_jax.config import ModelConfig
from igpt_jax.model.attention import attend, saves_attention
from igpt_jax.model.rotary import rotate

NORM_EPSILON = 1e-5
# What the backward pass keeps of a block's forward pass; it recomputes everything else. The keys are those of
# `config.REMAT` but "none", which needs no policy.
REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable, saves_attention
    ),
    "attention": saves_attention,
    "full": jax.checkpoint_policies.nothing_saveable,
}
# The backward pass of a wrapped function recomputes what it needs from the arguments. Without it, the scan over the
# blocks would store every intermediate value of every layer, and a reshaped copy of every weight.
remat = functools.partial(jax.checkpoint, prevent_cse=False)


@remat
def quick_gelu(x: jax.Array) -> jax.Array:
    """x·sigmoid(1.702x), the released code's approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


@remat
def squared_relu(x: jax.Array) -> jax.Array:
    """max(x, 0)² (So et al. 2021, arXiv:2109.08668)."""
    return jax.nn.relu(x) ** 2


@remat
def swiglu(gate: jax.Array, x: jax.Array) -> jax.Array:
    """gate·sigmoid(gate)·x (Shazeer 2020, arXiv:2002.05202)."""
    return jax.nn.silu(gate) * x


ACTIVATIONS = {"quick_gelu": quick_gelu, "squared_relu": squared_relu, "swiglu": swiglu}


def all_gather_weight(weight: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """All-gathers a weight along its `width` axis, of which every device keeps a slice (FSDP).

    In the backward pass, the gradient is summed over the devices and cut into the same slices (reduce-scatter).

    Args:
      weight: already in the compute type, which halves the traffic in bfloat16.
      axes: the logical axis of each dimension.
    """
    weight = nn.with_logical_constraint(weight, axes)
    return nn.with_logical_constraint(weight, tuple(None if axis == "width" else axis for axis in axes))


def shard_activations(h_btd: jax.Array) -> jax.Array:
    """Shards activations between blocks: images over the mesh axis `data`, positions over the mesh axis `model`.

    Norms and residual sums treat every position by itself, so they need no communication in this layout. With a
    `model` axis, attention and MLP each begin with an all-gather and end with a reduce-scatter, in place of one
    all-reduce, and the activations saved for the backward pass are split over `model` too.
    """
    return nn.with_logical_constraint(h_btd, ("batch", "sequence", None))


class RMSNorm(nn.Module):
    """An RMS norm with a learned gain, see `rms_norm`."""

    dtype: str  # of the result

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Normalizes the last axis; any axes may precede it."""
        gain_d = self.param("gain", nn.with_logical_partitioning(nn.initializers.ones, ("gain",)), x_btd.shape[-1:])
        return rms_norm(x_btd, gain_d, self.dtype)


@functools.partial(remat, static_argnums=2)
def rms_norm(x: jax.Array, gain_d: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Computes x / sqrt(mean(x²) + 1e-5) · gain over the last axis, in float32.

    The paper writes layer_norm, but the released code subtracts no mean and adds no bias.

    Args:
      x: (..., d), any float type.
      gain_d: (d,) float32.
      dtype: of the result.
    """
    x = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + NORM_EPSILON)
    return (x * scale * jnp.expand_dims(gain_d, range(x.ndim - 1))).astype(dtype)


class Linear(nn.Module):
    """Contracts the last axes of x with the first axes of a weight, and adds a bias if the config asks for one.

    The computation is one matmul, (all positions, inputs) x (inputs, outputs). With separate batch axes, XLA's gradient
    takes three times as long on a CPU.
    """

    config: ModelConfig
    inputs: tuple[int, ...]  # shape of the contracted axes
    outputs: tuple[int, ...]  # shape of the axes that replace them
    axes: tuple[str, ...]  # logical axes of the weight: those of `inputs`, then those of `outputs`
    std: float  # standard deviation of the initial weights

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (..., *inputs) to (..., *outputs)."""

        def parameter(
            name: str, initializer: nn.initializers.Initializer, shape: tuple[int, ...], axes: tuple[str, ...]
        ) -> jax.Array:
            partitioned: Any = nn.with_logical_partitioning(initializer, axes)  # Flax unboxes what it makes
            return self.param(name, partitioned, shape)

        def gathered(weight: jax.Array, axes: tuple[str, ...]) -> jax.Array:
            return all_gather_weight(weight.astype(self.config.dtype), axes)

        # Under remat, the backward pass gathers the kernel again; without it, every layer's whole kernel would be kept.
        @remat
        def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
            return x.reshape(-1, flat_inputs) @ gathered(kernel, self.axes).reshape(flat_inputs, flat_outputs)

        flat_inputs, flat_outputs = math.prod(self.inputs), math.prod(self.outputs)
        kernel = parameter("kernel", nn.initializers.normal(self.std), self.inputs + self.outputs, self.axes)
        y = matmul(x, kernel)
        if self.config.use_bias:
            axes = self.axes[len(self.inputs) :]
            bias = parameter("bias", nn.initializers.zeros, self.outputs, axes)
            y += gathered(bias, axes).reshape(1, flat_outputs)
        return y.reshape(*x.shape[: x.ndim - len(self.inputs)], *self.outputs)


class Attention(nn.Module):
    """Multi-head self-attention with separate query, key, value and output projections."""

    config: ModelConfig

    def setup(self) -> None:
        """Declares the projections and, with `qk_norm`, their norms."""
        c = self.config
        width, heads = (c.width,), (c.heads, c.head_dim)
        # The released code's initial weights; only the output projection shrinks with depth.
        self.query, self.key, self.value = (
            Linear(c, width, heads, axes=("width", "heads", "head_dim"), std=c.width**-0.5) for _ in range(3)
        )
        self.out = Linear(c, heads, width, axes=("heads", "head_dim", "width"), std=(c.width * c.layers) ** -0.5)
        if c.qk_norm:
            self.query_norm, self.key_norm = RMSNorm(c.dtype), RMSNorm(c.dtype)

    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Mixes information between the positions of each image."""
        c, q_bthk, k_bthk = self.config, self.query(x_btd), self.key(x_btd)
        if c.qk_norm:
            q_bthk, k_bthk = self.query_norm(q_bthk), self.key_norm(k_bthk)
        if c.positions == "rotary":
            pixel_1t = jnp.arange(x_btd.shape[1])[None]
            q_bthk = rotate(q_bthk, pixel_1t, c.resolution)
            # The inputs of a causal model are shifted right by one: position i reads pixel i - 1 and predicts pixel i.
            # So a key stands at the pixel that was read, and a query at the pixel to be predicted.
            k_bthk = rotate(k_bthk, pixel_1t - c.causal, c.resolution)
        mixed_bthk = attend(q_bthk, k_bthk, self.value(x_btd), causal=c.causal, backend=c.attention)
        return self.out(mixed_bthk)


class Mlp(nn.Module):
    """Maps the width to `mlp_width` and back, with an activation between; "swiglu" has a second map up, the gate."""

    config: ModelConfig

    def setup(self) -> None:
        """Declares the linear layers."""
        c = self.config
        width, mlp = (c.width,), (c.mlp_width,)
        self.up = Linear(c, width, mlp, axes=("width", "mlp"), std=0.02)
        if c.activation == "swiglu":
            self.gate = Linear(c, width, mlp, axes=("width", "mlp"), std=0.02)
        self.down = Linear(c, mlp, width, axes=("mlp", "width"), std=0.02)

    def __call__(self, x_btd: jax.Array) -> jax.Array:
        """Transforms every position by itself."""
        gates = [self.gate(x_btd)] if self.config.activation == "swiglu" else []
        return self.down(ACTIVATIONS[self.config.activation](*gates, self.up(x_btd)))


class Block(nn.Module):
    """One transformer layer: a = h + attention(norm(h)), then a + mlp(norm(a)).

    Reference:
      The paper, section 2.2.
    """

    config: ModelConfig
    pools_norm: bool = True  # whether the pooled features are of norm(h), as in the paper; False: of h itself

    def setup(self) -> None:
        """Declares the two norms, attention and MLP."""
        self.attention_norm = RMSNorm(self.config.dtype)
        self.attention = Attention(self.config)
        self.mlp_norm = RMSNorm(self.config.dtype)
        self.mlp = Mlp(self.config)

    def __call__(self, h_btd: jax.Array, _: None = None) -> tuple[jax.Array, jax.Array]:
        """Computes one layer.

        Args:
          h_btd: the residual stream, (b, t, d) in the compute type.
          _: unused; `nn.scan` passes a second argument.

        Returns:
          The next residual stream, and the features of this layer's input, pooled over positions: (b, d) float32.
        """
        n_btd = self.attention_norm(h_btd)
        a_btd = shard_activations(h_btd + self.attention(n_btd))
        # Pooled here, inside the scan, so that features of all layers cost (l, b, d) memory and not (l, b, t, d).
        pooled_bd = mean_over_positions(n_btd if self.pools_norm else h_btd)
        return shard_activations(a_btd + self.mlp(self.mlp_norm(a_btd))), pooled_bd


def mean_over_positions(n_btd: jax.Array) -> jax.Array:
    """Averages over positions in float32, as the paper pools a layer's features (section 2.4): (b, t, d) to (b, d)."""
    return n_btd.astype(jnp.float32).mean(axis=1)


def stack(config: ModelConfig, **kwargs: Any) -> nn.Module:
    """Builds all blocks as one scanned module, whose parameters have a leading layer axis.

    Args:
      config: number of blocks, their shape, and how to run them.
      **kwargs: further attributes of `Block`.

    Returns:
      A module that maps (h_btd, None) to the last h_btd and the pooled features of every block's input, (l, b, d).
    """
    block: Any = Block
    if config.remat in REMAT_POLICIES:
        # Inside a rolled loop XLA cannot merge the recomputation with the forward pass, so the barriers that prevent
        # this common subexpression elimination (CSE) are needed only if the loop is unrolled.
        block = nn.remat(Block, policy=REMAT_POLICIES[config.remat], prevent_cse=config.unroll > 1)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=config.layers,
        unroll=min(config.unroll, config.layers),
        metadata_params={nn.PARTITION_NAME: "layers"},
    )(config, **kwargs)
