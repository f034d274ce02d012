"""The Inception network beside torch's own operations on the same random weights, and the two ways of resizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from igpt_jax.config import ParallelConfig
from igpt_jax.errors import InputError
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.quality.inception import SIDE, Inception, load_inception
from igpt_jax.quality.networks import fit_to_inception, inception_network

RNG = np.random.default_rng(0)


class TorchInception:
    """Szegedy's network with the pools of TensorFlow's graph, out of torch's functions; it draws its own weights."""

    def __init__(self):
        torch.manual_seed(0)
        self.state = {}

    def conv(self, name, x, features, kernel=(1, 1), stride=1, padding=(0, 0)):
        shapes = {"conv.weight": (features, x.shape[1], *kernel)}
        shapes |= {f"bn.{part}": (features,) for part in ("weight", "bias", "running_mean", "running_var")}
        for part, shape in shapes.items():
            drawn = torch.randn(shape) * (2 / np.prod(shape[1:])) ** 0.5 if part == "conv.weight" else torch.rand(shape)
            self.state.setdefault(f"{name}.{part}", drawn)
        weight, gain, bias, mean, variance = (self.state[f"{name}.{part}"] for part in shapes)
        return F.relu(F.batch_norm(F.conv2d(x, weight, None, stride, padding), mean, variance, gain, bias, eps=1e-3))

    def mean_pool(self, x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def block_a(self, n, x, pooled):
        five = self.conv(f"{n}.branch5x5_2", self.conv(f"{n}.branch5x5_1", x, 48), 64, (5, 5), padding=2)
        three = self.conv(f"{n}.branch3x3dbl_2", self.conv(f"{n}.branch3x3dbl_1", x, 64), 96, (3, 3), padding=1)
        three = self.conv(f"{n}.branch3x3dbl_3", three, 96, (3, 3), padding=1)
        pool = self.conv(f"{n}.branch_pool", self.mean_pool(x), pooled)
        return torch.cat([self.conv(f"{n}.branch1x1", x, 64), five, three, pool], 1)

    def block_b(self, n, x):
        three = self.conv(f"{n}.branch3x3", x, 384, (3, 3), 2)
        twice = self.conv(f"{n}.branch3x3dbl_2", self.conv(f"{n}.branch3x3dbl_1", x, 64), 96, (3, 3), padding=1)
        twice = self.conv(f"{n}.branch3x3dbl_3", twice, 96, (3, 3), 2)
        return torch.cat([three, twice, F.max_pool2d(x, 3, 2)], 1)

    def block_c(self, n, x, c):
        row, column = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
        seven = self.conv(f"{n}.branch7x7_1", x, c)
        seven = self.conv(f"{n}.branch7x7_2", seven, c, **row)
        seven = self.conv(f"{n}.branch7x7_3", seven, 192, **column)
        twice = self.conv(f"{n}.branch7x7dbl_1", x, c)
        twice = self.conv(f"{n}.branch7x7dbl_2", twice, c, **column)
        twice = self.conv(f"{n}.branch7x7dbl_3", twice, c, **row)
        twice = self.conv(f"{n}.branch7x7dbl_4", twice, c, **column)
        twice = self.conv(f"{n}.branch7x7dbl_5", twice, 192, **row)
        pool = self.conv(f"{n}.branch_pool", self.mean_pool(x), 192)
        return torch.cat([self.conv(f"{n}.branch1x1", x, 192), seven, twice, pool], 1)

    def block_d(self, n, x):
        three = self.conv(f"{n}.branch3x3_2", self.conv(f"{n}.branch3x3_1", x, 192), 320, (3, 3), 2)
        seven = self.conv(f"{n}.branch7x7x3_1", x, 192)
        seven = self.conv(f"{n}.branch7x7x3_2", seven, 192, (1, 7), padding=(0, 3))
        seven = self.conv(f"{n}.branch7x7x3_3", seven, 192, (7, 1), padding=(3, 0))
        seven = self.conv(f"{n}.branch7x7x3_4", seven, 192, (3, 3), 2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def block_e(self, n, x, pooled):
        three = self.conv(f"{n}.branch3x3_1", x, 384)
        twice = self.conv(f"{n}.branch3x3dbl_2", self.conv(f"{n}.branch3x3dbl_1", x, 448), 384, (3, 3), padding=1)
        parts = [self.conv(f"{n}.branch1x1", x, 320)]
        for name, part in ((f"{n}.branch3x3_2", three), (f"{n}.branch3x3dbl_3", twice)):
            parts.append(self.conv(f"{name}a", part, 384, (1, 3), padding=(0, 1)))
            parts.append(self.conv(f"{name}b", part, 384, (3, 1), padding=(1, 0)))
        return torch.cat([*parts, self.conv(f"{n}.branch_pool", pooled, 192)], 1)

    @torch.no_grad()
    def __call__(self, x):
        x = self.conv("Conv2d_1a_3x3", x, 32, (3, 3), 2)
        x = self.conv("Conv2d_2b_3x3", self.conv("Conv2d_2a_3x3", x, 32, (3, 3)), 64, (3, 3), padding=1)
        x = self.conv("Conv2d_4a_3x3", self.conv("Conv2d_3b_1x1", F.max_pool2d(x, 3, 2), 80), 192, (3, 3))
        x = F.max_pool2d(x, 3, 2)
        for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = self.block_a(name, x, pooled)
        x = self.block_b("Mixed_6a", x)
        for name, inner in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = self.block_c(name, x, inner)
        x = self.block_d("Mixed_7a", x)
        x = self.block_e("Mixed_7b", x, self.mean_pool(x))
        x = self.block_e("Mixed_7c", x, F.max_pool2d(x, 3, 1, 1))
        features = x.mean((2, 3))
        self.state.setdefault("fc.weight", torch.randn(1008, 2048) / 2048**0.5)
        self.state.setdefault("fc.bias", torch.randn(1008))
        return features, F.linear(features, self.state["fc.weight"], self.state["fc.bias"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The reference, what it makes of an image, and a file of its weights in the format of pytorch-fid's file."""
    network, x_bhwc = TorchInception(), RNG.uniform(-1, 1, (1, SIDE, SIDE, 3)).astype(np.float32)
    outputs = [output.numpy() for output in network(torch.from_numpy(x_bhwc).permute(0, 3, 1, 2))]
    path = tmp_path_factory.mktemp("inception") / "pt_inception.pth"
    torch.save(network.state, path, _use_new_zipfile_serialization=False)
    return path, x_bhwc, outputs


def test_features_and_logits_equal_torchs_on_the_same_weights(reference):
    path, x_bhwc, (features, logits) = reference
    found_features, found_logits = jax.jit(Inception().apply)(load_inception(path), x_bhwc)
    np.testing.assert_allclose(found_features, features, rtol=1e-4, atol=1e-5 * np.abs(features).max())
    np.testing.assert_allclose(found_logits, logits, rtol=1e-4, atol=1e-5 * np.abs(logits).max())


def test_a_network_on_many_devices_computes_the_features_of_all_images_at_once(reference):
    path, _, _ = reference
    images = RNG.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8)  # three for each device: a pair and one more
    network = inception_network(path, "clean", make_mesh(ParallelConfig()), batch_size=20)
    at_once, _ = jax.jit(Inception().apply)(load_inception(path), fit_to_inception(jnp.asarray(images), "clean"))
    np.testing.assert_allclose(network.features(images), at_once, rtol=1e-4, atol=1e-5 * np.abs(at_once).max())


def test_a_file_of_other_weights_is_named(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth has no tensor .*; give pytorch-fid"):
        load_inception(tmp_path / "other.pth")


@pytest.mark.parametrize("side", [32, 400])
def test_clean_resizing_is_pillows_bicubic_in_float(side):
    image = RNG.integers(0, 256, (side, side, 3)).astype(np.uint8)
    channels = [Image.fromarray(image[..., c].astype(np.float32), mode="F") for c in range(3)]
    expected = np.stack([c.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for c in channels], axis=-1).clip(0, 255)
    found = fit_to_inception(jnp.asarray(image[None]), "clean")[0] * 128 + 128
    np.testing.assert_allclose(found, expected, atol=5e-3)


def test_the_older_resizing_is_torchs_bilinear():
    image = RNG.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    x = torch.from_numpy(image).permute(0, 3, 1, 2).float() / 255
    expected = 2 * F.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False).permute(0, 2, 3, 1) - 1
    np.testing.assert_allclose(fit_to_inception(jnp.asarray(image), "pytorch_fid"), expected, atol=2e-6)
