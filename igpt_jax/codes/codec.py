"""A trained codec, which converts pictures to codes and back, and stands wherever a palette does."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from igpt_jax.checks import check_grid, check_squares
from igpt_jax.codes.config import NetworkConfig
from igpt_jax.codes.network import Decoder, Encoder, to_floats, to_levels
from igpt_jax.codes.quantize import fsq, fsq_values, vq
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.progress import track
from igpt_jax.storage import as_path, local_copy
from igpt_jax.typed import read_dataclass
from igpt_jax.types import Params

FILE = "codec.safetensors"
_BATCH = 64  # pictures that are converted at once


@dataclasses.dataclass(frozen=True, eq=False)
class Codec:
    """Converts pictures to codes and back.

    Convolutions run in full float32 precision on every platform.  Still, a latent that lies within rounding errors of
    the border between two codes may get the other one on another platform.

    Attributes:
      config: the shape of the network.
      params: "encoder" and "decoder", and for "vq" the code "vectors"; float32.
    """

    config: NetworkConfig
    params: Params

    def __len__(self) -> int:
        return self.config.vocabulary

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Codec) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @property
    def scale(self) -> int:
        """How many pixels the side of a code has."""
        return self.config.factor

    @functools.cached_property
    def hash(self) -> str:
        """Identifies the codec: the first 16 hex digits of the SHA-256 of its shape and parameters."""
        digest = hashlib.sha256(_dump(self.config).encode())
        for name, value in sorted(_flat(self.params).items()):
            digest.update(name.encode() + value.tobytes())
        return digest.hexdigest()[:16]

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Converts pictures to codes.

        Args:
          images: (b, R, R, 3) uint8 RGB in 0..255, with R divisible by `scale`.

        Returns:
          (b, r*r) int32 in [0, vocabulary), with r = R / scale, in raster order.

        Raises:
          InputError: the images have another dtype or shape.
        """
        images = check_squares(images)
        if images.shape[1] % self.scale:
            raise InputError(f"images have a side of {images.shape[1]} pixels; resize it to a multiple of {self.scale}")
        codes = _in_batches(functools.partial(_encode, self.config, self.params), images)
        return np.concatenate(list(codes)).reshape(len(images), -1)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Converts codes to pictures, and shows its progress.

        Args:
          tokens: (b, r*r) integers in [0, vocabulary), in raster order.

        Returns:
          (b, R, R, 3) uint8 RGB in 0..255, with R = r * scale.

        Raises:
          InputError: the codes have another shape or dtype, or one is out of range.
        """
        codes_bhw = check_grid(tokens, len(self), "codec").astype(np.int32)
        pictures = _in_batches(functools.partial(_decode, self.config, self.params), codes_bhw)
        return np.concatenate(list(track(pictures, "decoding", len(codes_bhw), "picture", len)))

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file, atomically."""
        with atomic_write(as_path(path)) as partial:
            safetensors.numpy.save_file(_flat(self.params), partial, {"network": _dump(self.config)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Codec":
        """Reads a codec from a file that `save` wrote, or from the workdir of a training.

        Raises:
          InputError: there is no such file, or it holds no codec.
        """
        place = as_path(path)
        place = place / FILE if place.is_dir() else place
        if not place.exists():
            raise InputError(f"there is no codec at {path}; train one with: python -m igpt_jax codes")
        try:
            with safetensors.safe_open(local_copy(place), framework="numpy") as file:
                config = read_dataclass(NetworkConfig, json.loads(file.metadata()["network"]))
                flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is not a dict
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{place} is not a codec ({error}); make it again") from error
        return cls(config, flax.traverse_util.unflatten_dict(flat, sep="/"))


def quantize(config: NetworkConfig, params: Params, latents: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Quantizes latents (..., d) by the quantizer of the config; returns the values (..., d) and the codes (...)."""
    return fsq(latents, config.levels) if config.quantizer == "fsq" else vq(latents, params["vectors"])


@functools.partial(jax.jit, static_argnums=0)
def _encode(config: NetworkConfig, params: Params, images_bhwc: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        latents: Any = Encoder(config).apply({"params": params["encoder"]}, to_floats(images_bhwc))
        _, codes_bhw = quantize(config, params, latents)
    return codes_bhw


@functools.partial(jax.jit, static_argnums=0)
def _decode(config: NetworkConfig, params: Params, codes_bhw: jax.Array) -> jax.Array:
    fixed = config.quantizer == "fsq"
    values_bhwd = fsq_values(codes_bhw, config.levels) if fixed else jnp.asarray(params["vectors"])[codes_bhw]
    with jax.default_matmul_precision("highest"):
        pictures: Any = Decoder(config).apply({"params": params["decoder"]}, values_bhwd)
    return to_levels(pictures)


def _in_batches(function: Any, items: np.ndarray) -> Iterator[np.ndarray]:
    """Calls a function on parts of one size, of which the last is filled up, so that it is compiled once."""
    size = min(_BATCH, max(1, len(items)))
    for start in range(0, max(1, len(items)), size):
        part = items[start : start + size]
        filled = np.concatenate([part, np.zeros((size - len(part), *items.shape[1:]), items.dtype)])
        yield np.asarray(function(filled))[: len(part)]


def _flat(params: Params) -> dict[str, np.ndarray]:
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    return {name: np.ascontiguousarray(value, np.float32) for name, value in flat.items()}


def _dump(config: NetworkConfig) -> str:
    return json.dumps(dataclasses.asdict(config), sort_keys=True)
