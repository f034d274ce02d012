"""The Inception network that the Fréchet Inception distance (FID) is defined with.

It is InceptionV3 as in TensorFlow's graph of 2015-12-05. It differs from torchvision's in three ways: average pools do
not count the padding, the last block uses a maximum pool, and there are 1,008 classes.

Reference:
  Szegedy et al. 2015, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500.
"""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.errors import InputError
from igpt_jax.weights.tensor_files import open_tensors

SIDE, FEATURES, CLASSES = 299, 2048, 1008
BATCH_NORM_EPSILON = 1e-3

# Names in torch's files, by the collection and name of a Flax variable.
_TORCH_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}


class Inception(nn.Module):
    """Maps pixels to the 2,048 features of the last pool, and to 1,008 class logits.

    Modules have the names that the torch ports of the network give them, so `load_inception` needs no table of modules.
    """

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Computes features and logits.

        Args:
          x_bhwc: (b, 299, 299, 3) float32 in about -1..1.

        Returns:
          Features, (b, 2048) float32; and logits, (b, 1008) float32.
        """
        x = Convolution(32, (3, 3), stride=2, name="Conv2d_1a_3x3")(x_bhwc)
        x = Convolution(32, (3, 3), crop=True, name="Conv2d_2a_3x3")(x)
        x = Convolution(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = max_pool(x)
        x = Convolution(80, name="Conv2d_3b_1x1")(x)
        x = Convolution(192, (3, 3), crop=True, name="Conv2d_4a_3x3")(x)
        x = max_pool(x)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pooled, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(inner, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(mean_pool, name="Mixed_7b")(x)
        x = BlockE(lambda x: max_pool(x, stride=1), name="Mixed_7c")(x)
        features_bd = x.mean(axis=(1, 2))
        return features_bd, nn.Dense(CLASSES, precision="highest", name="fc")(features_bd)


class Convolution(nn.Module):
    """A convolution without bias, a batch norm with stored statistics, and a ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    crop: bool = False  # drop the outermost pixels, whose windows cross the edge

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """Maps (b, h, w, c) to (b, h', w', features)."""
        x_bhwc = nn.Conv(
            self.features,
            self.kernel,
            self.stride,
            padding="SAME" if self.stride == 1 else "VALID",
            use_bias=False,
            precision="highest",
            conv_general_dilated=_matmul if self.kernel == (1, 1) else None,
            name="conv",
        )(x_bhwc)
        if self.crop:  # a CPU would take up to twice as long for a convolution without padding
            x_bhwc = x_bhwc[:, 1:-1, 1:-1]
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=BATCH_NORM_EPSILON, name="bn")(x_bhwc))


def _matmul(x_bhwc: jax.Array, kernel_11io: jax.Array, *_: Any, precision: Any, **__: Any) -> jax.Array:
    """A convolution of 1x1 pixels as a matmul, which XLA computes faster on a CPU."""
    return jnp.einsum("bhwi,io->bhwo", x_bhwc, kernel_11io[0, 0], precision=precision)


def max_pool(x_bhwc: jax.Array, stride: int = 2) -> jax.Array:
    """Takes the maximum over windows of 3x3 pixels; at stride 1, also over those that cross the edge."""
    return _pool(jnp.maximum, x_bhwc if stride > 1 else _pad(x_bhwc, -jnp.inf), stride)


def mean_pool(x_bhwc: jax.Array) -> jax.Array:
    """Takes the mean over windows of 3x3 pixels, without those outside of the image."""
    ones_1hw1 = jnp.ones((1, *x_bhwc.shape[1:3], 1))
    return _pool(jnp.add, _pad(x_bhwc, 0)) / _pool(jnp.add, _pad(ones_1hw1, 0))


def _pad(x_bhwc: jax.Array, value: float) -> jax.Array:
    return jnp.pad(x_bhwc, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


def _pool(combine: Callable[..., jax.Array], x_bhwc: jax.Array, stride: int = 1) -> jax.Array:
    """Combines the pixels of windows of 3x3, as slices: on a CPU, XLA is ten times slower with a window reduction."""
    for axis in (1, 2):
        size = x_bhwc.shape[axis] - 2
        slices = (jax.lax.slice_in_dim(x_bhwc, first, first + size, stride, axis) for first in range(3))
        x_bhwc = functools.reduce(combine, slices)
    return x_bhwc


class _Block(nn.Module):
    """Parallel branches, each a chain of convolutions, whose outputs are concatenated."""

    def chain(self, x: jax.Array, branch: str, *shapes: tuple[Any, ...], first: int = 1) -> jax.Array:
        """Applies convolutions one after another, named BRANCH_1, BRANCH_2, ... as in the torch ports.

        Args:
          x: (b, h, w, c).
          branch: the common part of the names.
          *shapes: (features, kernel, stride) of each convolution; kernel and stride may be left out, and are 1x1 and 1.
          first: number of the first convolution.
        """
        for number, (features, *options) in enumerate(shapes, first):
            kernel, stride = (options + [(1, 1), 1][len(options) :])[:2]
            x = Convolution(features, kernel, stride, name=f"{branch}_{number}")(x)
        return x


class BlockA(_Block):
    """On 35x35 pixels: branches with kernels 1x1, 5x5 and twice 3x3, and a pool."""

    pooled: int  # features of the branch with the pool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, 35, 35, c) to (b, 35, 35, 224 + pooled)."""
        branches = [
            Convolution(64, name="branch1x1")(x),
            self.chain(x, "branch5x5", (48,), (64, (5, 5))),
            self.chain(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3))),
            Convolution(self.pooled, name="branch_pool")(mean_pool(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockB(_Block):
    """Reduces 35x35 to 17x17 pixels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, 35, 35, c) to (b, 17, 17, 480 + c)."""
        branches = [
            Convolution(384, (3, 3), 2, name="branch3x3")(x),
            self.chain(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3), 2)),
            max_pool(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockC(_Block):
    """On 17x17 pixels: branches with 7x7 kernels, factored into rows of 1x7 and columns of 7x1."""

    inner: int  # features between the convolutions of a branch

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, 17, 17, c) to (b, 17, 17, 768)."""
        c, row, column = self.inner, (1, 7), (7, 1)
        branches = [
            Convolution(192, name="branch1x1")(x),
            self.chain(x, "branch7x7", (c,), (c, row), (192, column)),
            self.chain(x, "branch7x7dbl", (c,), (c, column), (c, row), (c, column), (192, row)),
            Convolution(192, name="branch_pool")(mean_pool(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockD(_Block):
    """Reduces 17x17 to 8x8 pixels."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, 17, 17, c) to (b, 8, 8, 512 + c)."""
        branches = [
            self.chain(x, "branch3x3", (192,), (320, (3, 3), 2)),
            self.chain(x, "branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2)),
            max_pool(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockE(_Block):
    """On 8x8 pixels: branches that end in a 1x3 and a 3x1 kernel in parallel."""

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, 8, 8, c) to (b, 8, 8, 2048)."""

        def row_and_column(x: jax.Array, name: str) -> list[jax.Array]:
            return [
                Convolution(384, (1, 3), name=f"{name}a")(x),
                Convolution(384, (3, 1), name=f"{name}b")(x),
            ]

        narrow = self.chain(x, "branch3x3", (384,))
        wide = self.chain(x, "branch3x3dbl", (448,), (384, (3, 3)))
        branches = [
            Convolution(320, name="branch1x1")(x),
            *row_and_column(narrow, "branch3x3_2"),
            *row_and_column(wide, "branch3x3dbl_3"),
            Convolution(192, name="branch_pool")(self.pool(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


def load_inception(path: pathlib.Path) -> dict[str, Any]:
    """Reads the variables of `Inception` from a file of torch tensors: pytorch-fid's .pth, or safetensors.

    Raises:
      InputError: a tensor is missing, or has another shape.
    """
    tensors = open_tensors(path)
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))

    def read(path_of_leaf: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        collection, *modules, kind = (key.key for key in path_of_leaf)
        name = ".".join([*modules, _TORCH_NAMES[collection, kind]])
        if name not in tensors:
            raise InputError(f"{path} has no tensor {name}; give pytorch-fid's pt_inception-2015-12-05 file")
        values = np.asarray(tensors[name].read(), np.float32)
        # Torch keeps kernels as (outputs, inputs, height, width), and Flax as (height, width, inputs, outputs).
        if values.ndim == 4:
            values = values.transpose(2, 3, 1, 0)
        elif values.ndim == 2:
            values = values.T
        if values.shape != leaf.shape:
            raise InputError(f"{path}: {name} has shape {values.shape}, but the network's is {leaf.shape}")
        return values

    return jax.tree_util.tree_map_with_path(read, shapes)
