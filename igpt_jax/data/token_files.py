"""Images that are tokens already: shards written by `python -m igpt_jax tokens`, and OpenAI's .npy files."""

import json
import operator
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import tqdm

from igpt_jax.data.palette import Palette
from igpt_jax.data.records import TokenSource
from igpt_jax.errors import InputError
from igpt_jax.files import make_directory

MANIFEST, PALETTE = "manifest.json", "palette.npy"
_OPENAI = {"train": "tr", "validation": "va", "test": "te"}
_PLAN = "manifest.partial.json"  # what an unfinished directory will hold
_SCAN = 8192  # labels that are read at once
_SHARD = 2**14  # images in a shard; batches are a divisor of it


def open_tokens(path: str, split: str, *, fold_validation: bool = False) -> TokenSource:
    """Opens a split of a directory that `write_tokens` made, or of OpenAI's files.

    path: the directory, or what OpenAI's names begin with: DIR/imagenet for DIR/imagenet_trX.npy and its siblings.

    Raises:
      InputError: there are no such files, one is damaged, or the palette is not the one that the manifest names.
    """
    root = pathlib.Path(path).expanduser()
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


def _open_openai(root, part):
    """The tokens, the labels, and the width of one-hot labels (None: they are numbers; 0: there are none)."""
    tokens = _load(root.with_name(f"{root.name}_{part}X.npy"))
    path = root.with_name(f"{root.name}_{part}Y.npy")
    if not path.exists():
        return tokens, np.zeros(len(tokens), np.int32), 0
    given = _load(path, dimensions=(1, 2))
    if len(given) != len(tokens):
        raise InputError(f"{path} has {len(given)} labels for {len(tokens)} images; download both again")
    if given.ndim == 1:
        return tokens, np.asarray(given, np.int32), None
    return (
        tokens,
        np.concatenate([_hot(path, given[i : i + _SCAN]) for i in range(0, len(given), _SCAN)]),
        given.shape[1],
    )


def _hot(path, one_hot):
    labels = one_hot.argmax(axis=1).astype(np.int32)
    if not (np.count_nonzero(one_hot, axis=1) == 1).all():
        raise InputError(f"{path} is neither (n,) label numbers nor (n, classes) with a single non-zero entry a row")
    return labels


def _load(path, dimensions=(2,)):
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy reads the header with Python's own parser, which raises many kinds
        raise InputError(f"{path} is no array of numbers: {error}; write or download it again") from error
    if array.ndim not in dimensions:
        raise InputError(f"{path} has shape {array.shape}; expected {' or '.join(map(str, dimensions))} axes")
    if dimensions == (2,) and (
        not np.issubdtype(array.dtype, np.integer) or round(array.shape[1] ** 0.5) ** 2 != array.shape[1]
    ):
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}; expected integer tokens (n, r*r)")
    return array


def write_tokens(
    directory: pathlib.Path,
    palette: Palette,
    facts: dict,
    splits: dict[str, tuple[int, Callable[[int], Iterator[dict[str, np.ndarray]]]]],
) -> None:
    """Writes every split as shards of uint16 tokens with their labels, the palette, and last the manifest.

    facts: what made the tokens; kept in the manifest.  splits: the number of images of each split, and what streams
    its "tokens" and "label" batches from an image on.  Called again after an interruption, it goes on after the last
    whole shard.

    Raises:
      InputError: the directory holds tokens already, or some that other facts made.
    """
    plan = facts | {
        "palette": palette.hash,
        "splits": {name: {"images": images} for name, (images, _) in splits.items()},
    }
    _claim(directory, plan)
    palette.save(directory / PALETTE)
    for split, (images, stream) in splits.items():
        shards = [f"{split}-{i:05d}.npy" for i in range(-(-images // _SHARD))]
        done = next((i for i, name in enumerate(shards) if not _labels(directory / name).exists()), len(shards))
        with tqdm.tqdm(total=images, initial=min(done * _SHARD, images), desc=split, unit="image", disable=None) as bar:
            for name, (tokens, labels) in zip(shards[done:], _in_shards(stream(done * _SHARD), bar), strict=False):
                _save(directory / name, tokens)
                _save(_labels(directory / name), labels)
        plan["splits"][split]["shards"] = shards
    _save_json(directory / MANIFEST, plan)
    (directory / _PLAN).unlink()


def _claim(directory, plan):
    if (directory / MANIFEST).exists():
        raise InputError(f"{directory} holds tokens already; give another --out, or remove it")
    if (directory / _PLAN).exists():
        if not _says(directory / _PLAN, plan):
            raise InputError(f"{directory} holds the beginning of other tokens; give another --out, or remove it")
    elif directory.exists() and any(directory.iterdir()):
        raise InputError(f"{directory} is not empty; give another --out")
    make_directory(directory)
    _save_json(directory / _PLAN, plan)


def _in_shards(stream, bar):
    tokens, labels, count = [], [], 0
    for batch in stream:
        tokens.append(batch["tokens"].astype(np.uint16))
        labels.append(batch["label"])
        count += len(labels[-1])
        bar.update(len(labels[-1]))
        if count >= _SHARD:
            yield np.concatenate(tokens), np.concatenate(labels)
            tokens, labels, count = [], [], 0
    if count:
        yield np.concatenate(tokens), np.concatenate(labels)


def _open_shards(root, split, fold_validation):
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        splits = {
            name: ([root / shard for shard in held["shards"]], held["images"])
            for name, held in manifest["splits"].items()
        }
        folded, expected = manifest["fold_validation"], manifest["palette"]
        classes = operator.index(manifest["classes"])
        if any(shard.parent != root for files, _ in splits.values() for shard in files):
            raise ValueError("it names files of another directory")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{root / MANIFEST} is damaged ({error!r}); write the tokens again") from error
    if split not in splits:
        raise InputError(f"{root} has no {split} tokens, only {', '.join(splits)}; write them again")
    shards, images = splits[split]
    if fold_validation and not folded:
        raise InputError(f"{root} was written with fold_validation=False; set it so, or write the tokens again")
    palette = Palette.load(root / PALETTE)
    if palette.hash != expected:
        raise InputError(
            f"{root / PALETTE} has hash {palette.hash}, but the tokens were made with {expected}; put the "
            "right palette back"
        )
    tokens = [_load(shard) for shard in shards]
    labels = np.concatenate([_load(_labels(shard), dimensions=(1,)) for shard in shards] or [np.zeros(0)])
    if not sum(map(len, tokens)) == len(labels) == images > 0:
        raise InputError(f"{root} is damaged: {images} {split} images are in its manifest, {len(labels)} in its files")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= max(classes, 1):
        raise InputError(
            f"{root} is damaged: its {split} labels are not integers below {classes}; write the tokens again"
        )
    return TokenSource(tokens, labels.astype(np.int32), classes, palette)


def _labels(shard):
    return shard.with_suffix(".labels.npy")


def _save(path, array):
    _replace(path, lambda file: np.save(file, array))


def _save_json(path, values):
    _replace(path, lambda file: file.write(f"{json.dumps(values, indent=2)}\n".encode()))


def _says(path, values):
    try:
        return json.loads(path.read_bytes()) == values
    except ValueError:
        return False


def _replace(path, write):
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        write(file)
    os.replace(partial, path)
