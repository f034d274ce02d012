"""The Inception network that the Fréchet Inception distance is defined with.

It is InceptionV3 as TensorFlow's graph of 2015-12-05 has it (Szegedy et al., arXiv:1512.00567; Heusel et al.,
arXiv:1706.08500).  It differs from torchvision's in three ways: average pools do not count the padding, the last
block pools by maximum, and there are 1,008 classes.
"""

import pathlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.errors import InputError
from igpt_jax.weights.tensor_files import open_tensors

SIDE, FEATURES, CLASSES = 299, 2048, 1008
BATCH_NORM_EPSILON = 1e-3


class Inception(nn.Module):
    """Maps pixels to the 2,048 features of the last pool and the 1,008 logits.

    The parameters have the names that torch ports of the network give them, so `load` needs no table of names.
    """

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x_bhwc: (b, 299, 299, 3) float32 in about -1..1.  Returns (b, 2048) and (b, 1008), float32."""
        x = Convolution(32, (3, 3), stride=2, name="Conv2d_1a_3x3")(x_bhwc)
        x = Convolution(32, (3, 3), padding="VALID", name="Conv2d_2a_3x3")(x)
        x = Convolution(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = max_pool(x)
        x = Convolution(80, name="Conv2d_3b_1x1")(x)
        x = Convolution(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3")(x)
        x = max_pool(x)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pooled, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(inner, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(mean_pool, name="Mixed_7b")(x)
        x = BlockE(lambda x: max_pool(x, stride=1, padding="SAME"), name="Mixed_7c")(x)
        features_bd = x.mean(axis=(1, 2))
        return features_bd, nn.Dense(CLASSES, precision="highest", name="fc")(features_bd)


class Convolution(nn.Module):
    """A convolution without bias, batch normalization with stored statistics, and a ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = ""  # "" is "SAME" at stride 1 and "VALID" at stride 2

    @nn.compact
    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        padding = self.padding or ("SAME" if self.stride == 1 else "VALID")
        x_bhwc = nn.Conv(
            self.features, self.kernel, self.stride, padding, use_bias=False, precision="highest", name="conv"
        )(x_bhwc)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=BATCH_NORM_EPSILON, name="bn")(x_bhwc))


def max_pool(x_bhwc: jax.Array, stride: int = 2, padding: str = "VALID") -> jax.Array:
    """The maximum over windows of 3x3."""
    return nn.max_pool(x_bhwc, (3, 3), (stride, stride), padding)


def mean_pool(x_bhwc: jax.Array) -> jax.Array:
    """The mean over windows of 3x3, of the pixels that lie inside the image."""
    return nn.avg_pool(x_bhwc, (3, 3), (1, 1), "SAME", count_include_pad=False)


class _Block(nn.Module):
    """Branches side by side, each a chain of convolutions that `chain` names as the torch ports do."""

    def chain(self, x, branch, *shapes, first=1):
        for number, (features, *options) in enumerate(shapes, first):
            kernel, stride = (options + [(1, 1), 1][len(options) :])[:2]
            x = Convolution(features, kernel, stride, name=f"{branch}_{number}")(x)
        return x


class BlockA(_Block):
    """35x35: kernels of 1, 5 and twice 3, and a pool."""

    pooled: int

    @nn.compact
    def __call__(self, x):
        branches = [
            Convolution(64, name="branch1x1")(x),
            self.chain(x, "branch5x5", (48,), (64, (5, 5))),
            self.chain(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3))),
            Convolution(self.pooled, name="branch_pool")(mean_pool(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockB(_Block):
    """From 35x35 to 17x17."""

    @nn.compact
    def __call__(self, x):
        branches = [
            Convolution(384, (3, 3), 2, name="branch3x3")(x),
            self.chain(x, "branch3x3dbl", (64,), (96, (3, 3)), (96, (3, 3), 2)),
            max_pool(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockC(_Block):
    """17x17: kernels of 7 as a row and a column."""

    inner: int

    @nn.compact
    def __call__(self, x):
        c, row, column = self.inner, (1, 7), (7, 1)
        branches = [
            Convolution(192, name="branch1x1")(x),
            self.chain(x, "branch7x7", (c,), (c, row), (192, column)),
            self.chain(x, "branch7x7dbl", (c,), (c, column), (c, row), (c, column), (192, row)),
            Convolution(192, name="branch_pool")(mean_pool(x)),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockD(_Block):
    """From 17x17 to 8x8."""

    @nn.compact
    def __call__(self, x):
        branches = [
            self.chain(x, "branch3x3", (192,), (320, (3, 3), 2)),
            self.chain(x, "branch7x7x3", (192,), (192, (1, 7)), (192, (7, 1)), (192, (3, 3), 2)),
            max_pool(x),
        ]
        return jnp.concatenate(branches, axis=-1)


class BlockE(_Block):
    """8x8: kernels of 3 as a row beside a column."""

    pool: Callable[[jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x):
        def row_and_column(x, name):
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


def load_inception(path: pathlib.Path) -> dict:
    """Reads the network's variables from a file of torch tensors: pytorch-fid's .pth, or safetensors.

    Raises:
      InputError: a tensor is missing, or has another shape.
    """
    tensors = open_tensors(path)
    shapes = jax.eval_shape(Inception().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))

    def read(path_of_leaf, leaf):
        collection, *modules, kind = (key.key for key in path_of_leaf)
        name = ".".join([*modules, _TORCH_NAMES[collection, kind]])
        if name not in tensors:
            raise InputError(f"{path} has no tensor {name}; give pytorch-fid's pt_inception-2015-12-05 file")
        values = np.asarray(tensors[name].read(), np.float32)
        if values.ndim == 4:
            values = values.transpose(2, 3, 1, 0)
        elif values.ndim == 2:
            values = values.T
        if values.shape != leaf.shape:
            raise InputError(f"{path}: {name} has shape {values.shape}, but the network's is {leaf.shape}")
        return values

    return jax.tree_util.tree_map_with_path(read, shapes)


_TORCH_NAMES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
