"""Writes an array of images as tokens, so that a run can train on it like on any other source."""

import functools
import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from igpt_jax.data.token_files import MANIFEST, read_manifest
from igpt_jax.data.token_shards import write_tokens
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.errors import InputError
from igpt_jax.types import HostBatch

_BATCH = 256  # images that are encoded at once


def write_array(directory: pathlib.Path, images: np.ndarray, palette: Tokenizer) -> None:
    """Writes images as tokens, a tenth of them as the test split; tokens of the same images stay as they are.

    Args:
      directory: where to write, as in `write_tokens`.
      images: (n, r, r, 3) uint8 RGB in 0..255.
      palette: encodes the images.

    Raises:
      InputError: there are fewer than two images, or the directory holds other tokens.
    """
    if len(images) < 2:
        raise InputError("pretraining needs at least two images, one of them for the test split")
    facts: dict[str, Any] = {
        "source": "array",
        "resolution": images.shape[1] // palette.scale,
        "classes": 0,
        "fold_validation": True,
    }
    facts["sha256"] = hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()
    if (directory / MANIFEST).exists():
        manifest = read_manifest(directory)
        if manifest.get("sha256") != facts["sha256"] or manifest.get("palette") != palette.hash:
            raise InputError(f"{directory} holds tokens of other images or another palette; use another workdir")
        return

    def stream(rows: np.ndarray, start: int) -> Iterator[HostBatch]:
        for i in range(start, len(rows), _BATCH):
            tokens_bt = palette.encode(images[rows[i : i + _BATCH]])
            yield {"tokens": tokens_bt, "label": np.zeros(len(tokens_bt), np.int32)}

    test, train = np.split(np.random.default_rng(0).permutation(len(images)), [max(1, len(images) // 10)])
    splits = {name: np.sort(rows) for name, rows in (("train", train), ("test", test))}
    write_tokens(
        directory,
        palette,
        facts,
        {name: (len(rows), functools.partial(stream, rows)) for name, rows in splits.items()},
    )
