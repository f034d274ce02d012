"""Reads images stored as tokens: the shards of `python -m igpt_jax tokens`, and OpenAI's .npy files."""

import json
import operator
import pathlib
from typing import Any

import numpy as np

from igpt_jax.data.records import TokenSource
from igpt_jax.data.tokenizer import CODEC, PALETTE, load_tokenizer, tokenizer_file
from igpt_jax.errors import InputError
from igpt_jax.storage import as_path, local_copy

MANIFEST = "manifest.json"
_OPENAI = {"train": "tr", "validation": "va", "test": "te"}
_SCAN = 8192  # labels that are read at once


def open_tokens(path: str, split: str, *, fold_validation: bool = False) -> TokenSource:
    """Opens a split of a directory that `token_shards.write_tokens` wrote, or of OpenAI's files.

    Args:
      path: the directory, or the prefix of OpenAI's files: DIR/imagenet for DIR/imagenet_trX.npy and so on.
      split: "train", "validation" or "test".
      fold_validation: whether "train" includes the validation images.  A directory must have been written so.

    Returns:
      The tokens in the order of the files, memory-mapped.  Those in a bucket are copied to this machine first.

    Raises:
      InputError: there are no such files, one is damaged, the palette is not the one that the manifest names, or the
        directory was written without `fold_validation`.
    """
    root = local_copy(as_path(path)).expanduser()
    if (root / MANIFEST).exists():
        return _open_shards(root, split, fold_validation)
    parts = [_OPENAI[split]] + (["va"] if fold_validation and split == "train" else [])
    if not root.with_name(f"{root.name}_{parts[0]}X.npy").exists():
        raise InputError(
            f"{path} holds no {split} tokens: there is neither {root / MANIFEST} nor {root}_{parts[0]}X.npy; write "
            "them with: python -m igpt_jax tokens"
        )
    opened = [_open_openai(root, part) for part in parts]
    classes = max(labels.max(initial=-1) + 1 if width is None else width for _, labels, width in opened)
    return TokenSource([tokens for tokens, *_ in opened], np.concatenate([labels for _, labels, _ in opened]), classes)


def _open_openai(root: pathlib.Path, part: str) -> tuple[np.ndarray, np.ndarray, int | None]:
    """The tokens, the labels, and the width of one-hot labels (None if they are numbers; 0 if there are none)."""
    tokens = _load(root.with_name(f"{root.name}_{part}X.npy"))
    path = root.with_name(f"{root.name}_{part}Y.npy")
    if not path.exists():
        return tokens, np.zeros(len(tokens), np.int32), 0
    stored = _load(path, dimensions=(1, 2))
    if len(stored) != len(tokens):
        raise InputError(f"{path} has {len(stored)} labels for {len(tokens)} images; download both again")
    if stored.ndim == 1:
        return tokens, np.asarray(stored, np.int32), None
    return (
        tokens,
        np.concatenate([_hot(path, stored[i : i + _SCAN]) for i in range(0, len(stored), _SCAN)]),
        stored.shape[1],
    )


def _hot(path: pathlib.Path, one_hot: np.ndarray) -> np.ndarray:
    labels = one_hot.argmax(axis=1).astype(np.int32)
    if not (np.count_nonzero(one_hot, axis=1) == 1).all():
        raise InputError(f"{path} is neither (n,) label numbers nor (n, classes) with a single non-zero entry a row")
    return labels


def _load(path: pathlib.Path, dimensions: tuple[int, ...] = (2,)) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy reads the header with Python's parser, which raises many types
        raise InputError(f"{path} is not an array of numbers: {error}; write or download it again") from error
    if array.ndim not in dimensions:
        raise InputError(f"{path} has shape {array.shape}; expected {' or '.join(map(str, dimensions))} axes")
    if dimensions == (2,) and (
        not np.issubdtype(array.dtype, np.integer) or round(array.shape[1] ** 0.5) ** 2 != array.shape[1]
    ):
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}; expected integer tokens (n, r*r)")
    return array


def labels_of(shard: pathlib.Path) -> pathlib.Path:
    """The file of the labels of a shard's images."""
    return shard.with_suffix(".labels.npy")


def read_manifest(root: pathlib.Path) -> dict[str, Any]:
    """Reads the manifest of a directory: how its tokens were made, and what it holds.

    Raises:
      InputError: it is damaged.
    """
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        if type(manifest) is not dict:
            raise TypeError("it is no JSON object")
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(root, error) from error
    return manifest


def _damaged(root: pathlib.Path, error: Exception) -> InputError:
    return InputError(f"{root / MANIFEST} is damaged ({error!r}); write the tokens again")


def _open_shards(root: pathlib.Path, split: str, fold_validation: bool) -> TokenSource:
    manifest = read_manifest(root)
    try:
        splits = {
            name: ([root / shard for shard in held["shards"]], held["images"])
            for name, held in manifest["splits"].items()
        }
        folded, expected = manifest["fold_validation"], manifest["palette"]
        classes, views = operator.index(manifest["classes"]), operator.index(manifest.get("crops", 0)) or 1
        if any(shard.parent != root for files, _ in splits.values() for shard in files):
            raise ValueError("it names files of another directory")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(root, error) from error
    if split not in splits:
        raise InputError(f"{root} has no {split} tokens, only {', '.join(splits)}; write them again")
    shards, images = splits[split]
    if fold_validation and not folded:
        raise InputError(f"{root} was written with fold_validation=False; set it so, or write the tokens again")
    file = tokenizer_file(root)
    if file is None:
        raise InputError(f"{root} has lost its {PALETTE} or {CODEC}; put it back")
    palette = load_tokenizer(file)
    if palette.hash != expected:
        raise InputError(
            f"{file} has hash {palette.hash}, but the tokens were made with {expected}; put the right one back"
        )
    tokens = [_load(shard) for shard in shards]
    labels = np.concatenate([_load(labels_of(shard), dimensions=(1,)) for shard in shards] or [np.zeros(0)])
    if not sum(map(len, tokens)) == len(labels) == images > 0:
        raise InputError(f"{root} is damaged: {images} {split} images are in its manifest, {len(labels)} in its files")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= max(classes, 1):
        raise InputError(
            f"{root} is damaged: its {split} labels are not integers below {classes}; write the tokens again"
        )
    return TokenSource(tokens, labels.astype(np.int32), classes, palette, views if split == "train" else 1)
