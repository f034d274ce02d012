"""The pre-norm residual stack: norms without bias, attention, MLP, and a scan over the blocks."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.config import ModelConfig
from igpt_jax.model.attention import attend, saves_attention
from igpt_jax.model.rotary import rotate

NORM_EPSILON = 1e-5
REMAT_POLICIES = {
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable, saves_attention
    ),
    "attention": saves_attention,
    "full": jax.checkpoint_policies.nothing_saveable,
}
# The backward pass of what it wraps starts from the arguments; without it, the scan over the blocks would stack every
# value between, and a reshaped copy of every weight.
remat = functools.partial(jax.checkpoint, prevent_cse=False)


@remat
def quick_gelu(x: jax.Array) -> jax.Array:
    """x·sigmoid(1.702x), the released code's approximation of the Gaussian error linear unit."""
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
    """Makes a weight whole along `width`, of which every device keeps a slice, for one layer's use of it.

    Called on the compute type, so that the slices travel in it.  The gradient takes the same way back: summed over the
    devices, then cut into slices.
    """
    weight = nn.with_logical_constraint(weight, axes)
    return nn.with_logical_constraint(weight, tuple(None if axis == "width" else axis for axis in axes))


def shard_activations(h_btd: jax.Array) -> jax.Array:
    """Lays the activations between blocks out: images along `data`; positions along `model`, where norms need no more.

    A model-parallel block then begins with a gather and ends with a reduce-scatter, in place of one all-reduce, and
    what is saved for the backward pass is cut by the `model` axis too.
    """
    return nn.with_logical_constraint(h_btd, ("batch", "sequence", None))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + 1e-5) · gain: the released norm subtracts no mean and adds no bias.  float32 inside."""

    dtype: str

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        gain_d = self.param("gain", nn.with_logical_partitioning(nn.initializers.ones, ("gain",)), x_btd.shape[-1:])
        return _normed(x_btd, gain_d, self.dtype)


@functools.partial(remat, static_argnums=2)
def _normed(x_btd, gain_d, dtype):
    x_btd = x_btd.astype(jnp.float32)
    scale_bt1 = jax.lax.rsqrt(jnp.mean(x_btd**2, axis=-1, keepdims=True) + NORM_EPSILON)
    return (x_btd * scale_bt1 * jnp.expand_dims(gain_d, range(x_btd.ndim - 1))).astype(dtype)


class Linear(nn.Module):
    """Contracts the last axes of x with the first axes of a weight, and adds a bias where the config has one.

    Computed as one product of matrices, (all positions, inputs) x (inputs, outputs): with the batch axes kept apart,
    XLA's gradient on a CPU takes three times as long.
    """

    config: ModelConfig
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str, ...]  # logical, of inputs and outputs
    std: float  # of the initial weights

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def parameter(name, initializer, shape, axes):
            return self.param(name, nn.with_logical_partitioning(initializer, axes), shape)

        def whole(weight, axes):
            return all_gather_weight(weight.astype(self.config.dtype), axes)

        @remat
        def product(x, kernel):
            return x.reshape(-1, flat_inputs) @ whole(kernel, self.axes).reshape(flat_inputs, flat_outputs)

        flat_inputs, flat_outputs = math.prod(self.inputs), math.prod(self.outputs)
        kernel = parameter("kernel", nn.initializers.normal(self.std), self.inputs + self.outputs, self.axes)
        y = product(x, kernel)
        if self.config.use_bias:
            axes = self.axes[len(self.inputs) :]
            bias = parameter("bias", nn.initializers.zeros, self.outputs, axes)
            y += whole(bias, axes).reshape(1, flat_outputs)
        return y.reshape(*x.shape[: x.ndim - len(self.inputs)], *self.outputs)


class Attention(nn.Module):
    """Multi-head self-attention with separate query, key, value and output projections."""

    config: ModelConfig

    def setup(self):
        c = self.config
        width, heads = (c.width,), (c.heads, c.head_dim)
        self.query, self.key, self.value = (
            Linear(c, width, heads, axes=("width", "heads", "head_dim"), std=c.width**-0.5) for _ in range(3)
        )
        self.out = Linear(c, heads, width, axes=("heads", "head_dim", "width"), std=(c.width * c.layers) ** -0.5)
        if c.qk_norm:
            self.query_norm, self.key_norm = RMSNorm(c.dtype), RMSNorm(c.dtype)

    def __call__(self, x_btd: jax.Array) -> jax.Array:
        c, q_bthk, k_bthk = self.config, self.query(x_btd), self.key(x_btd)
        if c.qk_norm:
            q_bthk, k_bthk = self.query_norm(q_bthk), self.key_norm(k_bthk)
        if c.positions == "rotary":
            pixel_1t = jnp.arange(x_btd.shape[1])[None]
            q_bthk = rotate(q_bthk, pixel_1t, c.resolution)
            k_bthk = rotate(k_bthk, pixel_1t - c.causal, c.resolution)  # a causal model has read the pixel before
        mixed_bthk = attend(q_bthk, k_bthk, self.value(x_btd), causal=c.causal, backend=c.attention)
        return self.out(mixed_bthk)


class Mlp(nn.Module):
    """Width to `mlp_width` and back, with the activation between; "swiglu" has a second way there, the gate."""

    config: ModelConfig

    def setup(self):
        c = self.config
        width, mlp = (c.width,), (c.mlp_width,)
        self.up = Linear(c, width, mlp, axes=("width", "mlp"), std=0.02)
        if c.activation == "swiglu":
            self.gate = Linear(c, width, mlp, axes=("width", "mlp"), std=0.02)
        self.down = Linear(c, mlp, width, axes=("mlp", "width"), std=0.02)

    def __call__(self, x_btd: jax.Array) -> jax.Array:
        gates = [self.gate(x_btd)] if self.config.activation == "swiglu" else []
        return self.down(ACTIVATIONS[self.config.activation](*gates, self.up(x_btd)))


class Block(nn.Module):
    """h + attention(norm(h)), then a + mlp(norm(a)) (paper, section 2.2)."""

    config: ModelConfig
    pools_norm: bool = True  # False: the pooled input is h itself

    def setup(self):
        self.attention_norm = RMSNorm(self.config.dtype)
        self.attention = Attention(self.config)
        self.mlp_norm = RMSNorm(self.config.dtype)
        self.mlp = Mlp(self.config)

    def __call__(self, h_btd: jax.Array, _=None) -> tuple[jax.Array, jax.Array]:
        """Returns the next h and the mean over positions of the normed input, (b, d) float32: the probe's feature."""
        n_btd = self.attention_norm(h_btd)
        a_btd = shard_activations(h_btd + self.attention(n_btd))
        pooled_bd = mean_over_positions(n_btd if self.pools_norm else h_btd)
        return shard_activations(a_btd + self.mlp(self.mlp_norm(a_btd))), pooled_bd


def mean_over_positions(n_btd: jax.Array) -> jax.Array:
    """<n_i>_i in float32, (b, d): how the paper pools a layer (section 2.4)."""
    return n_btd.astype(jnp.float32).mean(axis=1)


def stack(config: ModelConfig, **kwargs) -> nn.Module:
    """All blocks as one module whose parameters carry a leading layer axis; h -> (h, pooled inputs (l, b, d))."""
    block = Block
    if config.remat in REMAT_POLICIES:
        block = nn.remat(Block, policy=REMAT_POLICIES[config.remat], prevent_cse=config.unroll > 1)
    return nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=config.layers,
        unroll=min(config.unroll, config.layers),
        metadata_params={nn.PARTITION_NAME: "layers"},
    )(config, **kwargs)
