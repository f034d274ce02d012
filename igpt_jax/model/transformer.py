"""The pre-norm residual stack: norms without bias, attention, MLP, and a scan over the blocks."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from igpt_jax.config import ModelConfig
from igpt_jax.model.attention import attend, saves_attention

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
recomputed = functools.partial(jax.checkpoint, prevent_cse=False)


@recomputed
def quick_gelu(x: jax.Array) -> jax.Array:
    """x·sigmoid(1.702x), the released code's approximation of the Gaussian error linear unit."""
    return x * jax.nn.sigmoid(1.702 * x)


def gather(weight: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Makes a weight whole along `width`, of which every device keeps a slice, for one layer's use of it.

    Called on the compute type, so that the slices travel in it.  The gradient takes the same way back: summed over the
    devices, then cut into slices.
    """
    weight = nn.with_logical_constraint(weight, axes)
    return nn.with_logical_constraint(weight, tuple(None if axis == "width" else axis for axis in axes))


def spread(h_btd: jax.Array) -> jax.Array:
    """Lays the activations between blocks out: images along `data`; positions along `model`, where norms need no more.

    A model-parallel block then begins with a gather and ends with a reduce-scatter, in place of one all-reduce, and
    what is saved for the backward pass is cut by the `model` axis too.
    """
    return nn.with_logical_constraint(h_btd, ("batch", "sequence", None))


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + 1e-5) · gain: the released norm subtracts no mean and adds no bias.  float32 inside."""

    config: ModelConfig

    def setup(self):
        gain = nn.with_logical_partitioning(nn.initializers.ones, ("gain",))
        self.gain_d = self.param("gain", gain, (self.config.width,))

    def __call__(self, x_btd: jax.Array) -> jax.Array:
        return _normalized(x_btd, self.config.dtype, self.gain_d)

    def without_gain(self, x_btd: jax.Array) -> jax.Array:
        """x / sqrt(mean(x²) + 1e-5), for a `Linear` that multiplies its weight by the gain."""
        return _normalized(x_btd, self.config.dtype)


@functools.partial(recomputed, static_argnums=1)
def _normalized(x_btd, dtype, gain_d=None):
    x_btd = x_btd.astype(jnp.float32)
    x_btd *= jax.lax.rsqrt(jnp.mean(x_btd**2, axis=-1, keepdims=True) + NORM_EPSILON)
    return (x_btd if gain_d is None else x_btd * jnp.expand_dims(gain_d, range(x_btd.ndim - 1))).astype(dtype)


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
    def __call__(self, x: jax.Array, gain: jax.Array | None = None) -> jax.Array:
        """gain: of the norm before, by which the weight's rows are multiplied in place of all of x.

        The two are equal, but the gain's gradient then needs no sum over all positions.
        """

        def parameter(name, initializer, shape, axes):
            return self.param(name, nn.with_logical_partitioning(initializer, axes), shape)

        def whole(weight, axes):
            return gather(weight.astype(self.config.dtype), axes)

        @recomputed
        def product(x, kernel, gain):
            if gain is not None:
                kernel = kernel * jnp.expand_dims(gain, range(1, kernel.ndim))
            return x.reshape(-1, flat_inputs) @ whole(kernel, self.axes).reshape(flat_inputs, flat_outputs)

        flat_inputs, flat_outputs = math.prod(self.inputs), math.prod(self.outputs)
        kernel = parameter("kernel", nn.initializers.normal(self.std), self.inputs + self.outputs, self.axes)
        y = product(x, kernel, gain)
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

    def __call__(self, x_btd: jax.Array, gain_d: jax.Array) -> jax.Array:
        mixed_bthk = attend(
            self.query(x_btd, gain_d),
            self.key(x_btd, gain_d),
            self.value(x_btd, gain_d),
            causal=self.config.causal,
            backend=self.config.attention,
        )
        return self.out(mixed_bthk)


class Mlp(nn.Module):
    """Width to four times the width and back, with `quick_gelu` between."""

    config: ModelConfig

    def setup(self):
        c = self.config
        width, mlp = (c.width,), (4 * c.width,)
        self.up = Linear(c, width, mlp, axes=("width", "mlp"), std=0.02)
        self.down = Linear(c, mlp, width, axes=("mlp", "width"), std=0.02)

    def __call__(self, x_btd: jax.Array, gain_d: jax.Array) -> jax.Array:
        return self.down(quick_gelu(self.up(x_btd, gain_d)))


class Block(nn.Module):
    """h + attention(norm(h)), then a + mlp(norm(a)) (paper, section 2.2)."""

    config: ModelConfig
    pools_norm: bool = True  # False: the pooled input is h itself

    def setup(self):
        self.attention_norm = RMSNorm(self.config)
        self.attention = Attention(self.config)
        self.mlp_norm = RMSNorm(self.config)
        self.mlp = Mlp(self.config)

    def __call__(self, h_btd: jax.Array, _=None) -> tuple[jax.Array, jax.Array]:
        """Returns the next h and the mean over positions of the normed input, (b, d) float32: the probe's feature."""
        n_btd, gain_d = self.attention_norm.without_gain(h_btd), self.attention_norm.gain_d
        a_btd = spread(h_btd + self.attention(n_btd, gain_d))
        pooled_bd = mean_over_positions(n_btd) * gain_d[None] if self.pools_norm else mean_over_positions(h_btd)
        n_btd, gain_d = self.mlp_norm.without_gain(a_btd), self.mlp_norm.gain_d
        return spread(a_btd + self.mlp(n_btd, gain_d)), pooled_bd


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
