"""The networks whose features sets of images are compared in."""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.errors import InputError
from igpt_jax.evaluate.features import image_features
from igpt_jax.evaluate.forward import in_batches, map_batches
from igpt_jax.parallel.processes import allgather
from igpt_jax.progress import track
from igpt_jax.quality.inception import SIDE, Inception, load_inception
from igpt_jax.storage import local_copy
from igpt_jax.types import Batch
from igpt_jax.weights.load import load

RESIZES = ("clean", "pytorch_fid")


@dataclasses.dataclass(frozen=True)
class FeatureNetwork:
    """A network that computes features, with a name that tells whether two results are comparable.

    Attributes:
      name: the kind of network, a hash of its weights, and how images are resized for it. Results are comparable only
        if their names are equal.
      features: maps images (b, h, w, 3), uint8 0-255, to (b, d) float32.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]


def open_network(path: pathlib.Path, resize: str, mesh: Mesh, batch_size: int) -> FeatureNetwork:
    """Opens the network of a workdir, or Inception from a file of its weights.

    Args:
      path: a workdir, or a file that `load_inception` reads.
      resize: how images are resized for Inception, one of `RESIZES`; a workdir's network does not resize.
      mesh: devices.
      batch_size: images per forward pass.

    Raises:
      InputError: the workdir or the weights cannot be read, or `resize` is unknown.
    """
    if (path / "config.json").exists():
        return _run_network(path, mesh, batch_size)
    return inception_network(local_copy(path), resize, mesh, batch_size)


def inception_network(path: pathlib.Path, resize: str, mesh: Mesh, batch_size: int) -> FeatureNetwork:
    """Opens the Inception network, with which FID is defined.

    Args:
      path: a file that `load_inception` reads.
      resize: how images are resized to 299x299. "clean" is bicubic with antialiasing, as in clean-fid (Parmar et al.
        2021, arXiv:2104.11222). "pytorch_fid" is bilinear without antialiasing, as in the package of that name.
      mesh: devices.
      batch_size: images per forward pass.

    Raises:
      InputError: `resize` is unknown, or the weights cannot be read.
    """
    if resize not in RESIZES:
        raise InputError(f"--resize={resize} is not known; choose one of {', '.join(RESIZES)}")
    variables = load_inception(path)

    def features_of(images_bhwc: jax.Array) -> jax.Array:
        outputs: Any = Inception().apply(variables, fit_to_inception(images_bhwc, resize))
        return outputs[0]

    @jax.jit
    def features(batch: Batch) -> jax.Array:
        if mesh.devices.flat[0].platform != "cpu":
            return features_of(batch["images"])
        # A CPU is faster with two images at a time: their activations stay in its caches, and both use each weight.
        split = jax.sharding.PartitionSpec(("slice", "data"))
        in_pairs = functools.partial(jax.lax.map, lambda image_hwc: features_of(image_hwc[None])[0], batch_size=2)
        return jax.shard_map(in_pairs, in_specs=split, out_specs=split)(batch["images"])

    def over_batches(images_bhwc: np.ndarray) -> np.ndarray:
        outputs = map_batches(features, in_batches({"images": images_bhwc}, batch_size), mesh)
        return np.concatenate(list(track(outputs, "features", len(images_bhwc), "image", len)))

    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    return FeatureNetwork(f"inception {digest}, resize {resize}", over_batches)


def fit_to_inception(images_bhwc: jax.Array, resize: str) -> jax.Array:
    """Resizes and scales images for Inception.

    Args:
      images_bhwc: (b, h, w, 3), uint8 0-255.
      resize: one of `RESIZES`.

    Returns:
      (b, 299, 299, 3) float32 in about -1..1.
    """
    shape = (len(images_bhwc), SIDE, SIDE, 3)
    x_bhwc, precision = images_bhwc.astype(jnp.float32), jax.lax.Precision.HIGHEST
    if resize == "clean":
        x_bhwc = jax.image.resize(x_bhwc, shape, "cubic", antialias=True, precision=precision).clip(0, 255)
        return (x_bhwc - 128) / 128  # as TensorFlow's graph does
    return jax.image.resize(x_bhwc, shape, "linear", antialias=False, precision=precision) / 127.5 - 1


def _run_network(workdir: pathlib.Path, mesh: Mesh, batch_size: int) -> FeatureNetwork:
    """Opens the network of a run: the pooled features of its best layer, or of the middle one if none was probed."""
    model, params, palette = load(workdir, mesh=mesh)
    evaluation = workdir / "evaluation.json"
    probe = json.loads(evaluation.read_text()).get("probe", {}) if evaluation.exists() else {}
    layer, resolution = probe.get("best_layer", model.config.layers // 2), model.config.resolution
    features_of = functools.partial(image_features, model, params)

    def over_batches(images_bhwc: np.ndarray) -> np.ndarray:
        if images_bhwc.shape[1:3] != (resolution, resolution):
            raise InputError(
                f"the images are {images_bhwc.shape[2]}x{images_bhwc.shape[1]}, but {workdir} reads "
                f"{resolution}x{resolution}; resize them, or choose another --features"
            )
        tokens_bt = palette.encode(images_bhwc)
        batches = in_batches({"tokens": tokens_bt}, batch_size)
        features = (x_bld[:, layer] for x_bld in map_batches(features_of, batches, mesh))
        return np.concatenate(list(track(features, "features", len(tokens_bt), "image", len)))

    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(allgather(leaf).tobytes())
    return FeatureNetwork(f"igpt_jax run {workdir.name}, layer {layer}, {digest.hexdigest()[:12]}", over_batches)
