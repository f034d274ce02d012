"""Writes images as tokens: shards of uint16 tokens with their labels, a palette and a manifest, in any order."""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from igpt_jax.data.token_files import MANIFEST, labels_of
from igpt_jax.data.tokenizer import Tokenizer, save_tokenizer
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write, make_directory
from igpt_jax.progress import progress
from igpt_jax.types import HostBatch

# From the index of the first image to a stream of batches with "tokens" (b, r*r) and "label" (b,).
Stream = Callable[[int], Iterator[HostBatch]]

_PLAN = "manifest.partial.json"  # describes what an unfinished directory will hold
_SHARD = 2**14  # images in a shard


def write_tokens(
    directory: pathlib.Path, palette: Tokenizer, facts: dict[str, Any], splits: Mapping[str, tuple[int, Stream]]
) -> None:
    """Writes all splits in one process.  After an interruption, it continues after the last complete shard.

    Args:
      directory: where to write; created if necessary.
      palette: the palette or codec that encoded the images.
      facts: how the tokens were made, as JSON values; stored in the manifest.
      splits: for each split, the number of its images and their stream.

    Raises:
      InputError: the directory holds complete tokens, part of tokens that other facts made, or other files.
    """
    images = {name: count for name, (count, _) in splits.items()}
    begin(directory, palette, facts, images)
    for split, (count, stream) in splits.items():
        shards = _shards(split, count)
        done = next((i for i, name in enumerate(shards) if not labels_of(directory / name).exists()), len(shards))
        with progress(f"tokens of {split}", count, "image", min(done * _SHARD, count)) as advance:
            for name, shard in zip(shards[done:], _in_shards(stream(done * _SHARD), advance), strict=False):
                _save(directory / name, *shard)
    finish(directory)


def begin(directory: pathlib.Path, palette: Tokenizer, facts: dict[str, Any], images: Mapping[str, int]) -> None:
    """Makes the directory, or takes up one that the same call has begun, and writes the palette.

    Args:
      directory: as for `write_tokens`.
      palette: as for `write_tokens`.
      facts: as for `write_tokens`.
      images: how many there are in each split.

    Raises:
      InputError: as for `write_tokens`.
    """
    splits = {name: {"images": count, "shards": _shards(name, count)} for name, count in images.items()}
    plan = facts | {"palette": palette.hash, "splits": splits}
    if (directory / MANIFEST).exists():
        raise InputError(f"{directory} holds tokens already; give another --out, or remove it")
    if (directory / _PLAN).exists():
        if not _says(directory / _PLAN, plan):
            raise InputError(f"{directory} holds part of other tokens; give another --out, or remove it")
    elif directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory} is not empty; give another --out")
    make_directory(directory)
    with atomic_write(directory / _PLAN, shared=True) as partial:
        partial.write_text(f"{json.dumps(plan, indent=2)}\n")
    save_tokenizer(palette, directory)


def missing(directory: pathlib.Path) -> list[tuple[str, int]]:
    """Lists the shards that a directory still lacks, each as its split and its number."""
    splits = json.loads((directory / _PLAN).read_text())["splits"]
    return [
        (split, number)
        for split, held in splits.items()
        for number, name in enumerate(held["shards"])
        if not labels_of(directory / name).exists()
    ]


def write_shard(directory: pathlib.Path, split: str, number: int, stream: Stream) -> int:
    """Writes one shard of a directory that `begin` has begun, and returns the number of its images."""
    tokens, labels = next(_in_shards(stream(number * _SHARD), lambda _: None))
    _save(directory / _name(split, number), tokens, labels)
    return len(labels)


def finish(directory: pathlib.Path) -> None:
    """Writes the manifest, which makes the directory complete.

    Raises:
      InputError: a shard is missing.
    """
    if lacking := missing(directory):
        raise InputError(f"{directory} lacks {len(lacking)} shards; run the same command again to write them")
    plan = (directory / _PLAN).read_bytes()
    with atomic_write(directory / MANIFEST, shared=True) as partial:
        partial.write_bytes(plan)
    (directory / _PLAN).unlink()


def _shards(split: str, images: int) -> list[str]:
    return [_name(split, number) for number in range(-(-images // _SHARD))]


def _name(split: str, number: int) -> str:
    return f"{split}-{number:05d}.npy"


def _in_shards(stream: Iterator[HostBatch], advance: Callable[[int], None]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    tokens: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    count = 0
    for batch in stream:
        tokens.append(batch["tokens"].astype(np.uint16))
        labels.append(batch["label"])
        count += len(labels[-1])
        advance(len(labels[-1]))
        while count >= _SHARD:
            whole_tokens, whole_labels = np.concatenate(tokens), np.concatenate(labels)
            yield whole_tokens[:_SHARD], whole_labels[:_SHARD]
            tokens, labels, count = [whole_tokens[_SHARD:]], [whole_labels[_SHARD:]], count - _SHARD
    if count:
        yield np.concatenate(tokens), np.concatenate(labels)


def _save(shard: pathlib.Path, tokens: np.ndarray, labels: np.ndarray) -> None:
    """Writes the labels last, since a shard with labels is complete."""
    for path, array in ((shard, tokens), (labels_of(shard), labels)):
        with atomic_write(path, shared=True) as partial, partial.open("wb") as file:
            np.save(file, array)


def _says(path: pathlib.Path, values: dict[str, Any]) -> bool:
    try:
        return json.loads(path.read_bytes()) == values
    except ValueError:
        return False
