"""Opens sources of images by name, with the splits of the paper."""

import dataclasses
import typing
from collections.abc import Callable, Collection

import numpy as np

from igpt_jax.config import DataConfig
from igpt_jax.data.builders import describe_emoji
from igpt_jax.data.folder import open_folder, split_folders
from igpt_jax.data.photographs import open_photographs
from igpt_jax.data.prepared import open_split, prepare
from igpt_jax.data.records import BlendedSource, FileSource, MemorySource, Source
from igpt_jax.data.token_files import open_tokens
from igpt_jax.errors import InputError

SPLITS = ("train", "validation", "test")
_PERMUTATION_SEED = 0


def load_source(config: DataConfig, split: str) -> Source:
    """Opens a split of the source `config.name`, and prepares the data set first if necessary.

    "train" and "validation" divide the training images by a fixed permutation.  The validation split holds out 4 % of
    ImageNet and 10 % of any other data set; `config.fold_validation` returns those images to "train".  "test" is the
    data set's own test split.  If it has none, or its test labels are not public, "test" is its validation split.  A
    data set with neither, such as a plain folder, holds out 10 % of its images as "test".  Emoji and photographs define
    their own three splits.  Blended digits combine a split of digits with the same split of photographs.

    Args:
      config: the data section of the config.
      split: "train", "validation" or "test".

    Returns:
      The images of the split, in a fixed order.

    Raises:
      InputError: the name or the split is unknown, the split is empty, or its files cannot be used.

    Reference:
      Paper, section 3.1.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not known; choose one of {', '.join(SPLITS)}")
    kind, _, path = config.name.partition(":")
    if kind in ("emoji", "photographs") and split == "validation" and config.fold_validation:
        raise InputError(f"data.fold_validation=True leaves no image of data.name={kind} for validation; choose test")
    if kind == "tokens":
        return open_tokens(path, split, fold_validation=config.fold_validation)
    if kind == "folder":
        folders = split_folders(path)
        return _divide(config, split, folders.keys(), lambda name: open_folder(folders[name], folders["train"]))
    if kind == "photographs":
        return open_photographs(split, fold_validation=config.fold_validation)
    if kind == "blended_digits":
        digits = load_source(dataclasses.replace(config, name="digits"), split)
        return BlendedSource(
            typing.cast(MemorySource, digits), open_photographs(split, fold_validation=config.fold_validation)
        )
    if kind == "emoji":
        both = "train+validation" if split == "train" and config.fold_validation else split
        return open_split(prepare(config.name, config.directory, describe_emoji(config.emoji)), both)
    builder = prepare(config.name, config.directory)
    return _divide(config, split, builder.info.splits.keys(), lambda name: open_split(builder, name))


def describe_source(config: DataConfig) -> str:
    """Says which version of its data a source has: of emoji, the font's and Unicode's; "" for all others."""
    return describe_emoji(config.emoji).description if config.name == "emoji" else ""


def split_names(config: DataConfig) -> tuple[str, ...]:
    """The splits of a source; without "validation" if no training images are held out."""
    return SPLITS if _held_out(config) else ("train", "test")


def _held_out(config: DataConfig) -> float:
    """The fraction of the training images that validation holds out."""
    if config.fold_validation:
        return 0.0
    return 0.04 if config.name == "imagenet2012" else 0.1


def _divide(
    config: DataConfig, split: str, available: Collection[str], open_one: Callable[[str], MemorySource | FileSource]
) -> MemorySource | FileSource:
    public = ("validation",) if config.name.startswith("imagenet2012") else ("test", "validation")
    test = next((name for name in public if name in available), None)
    if split == "test" and test:
        return open_one(test)
    if "train" not in available:
        raise InputError(f"data.name={config.name} has no train split, only {', '.join(available)}; choose another set")
    whole = open_one("train")
    tested, validated = (round(fraction * len(whole)) for fraction in (0.0 if test else 0.1, _held_out(config)))
    order = np.random.RandomState(_PERMUTATION_SEED).permutation(len(whole))
    rows = dict(zip(("test", "validation", "train"), np.split(order, [tested, tested + validated]), strict=True))
    if not len(rows[split]):
        raise InputError(
            f"data.name={config.name} has {len(whole)} images and data.fold_validation={config.fold_validation}, which "
            f"leaves none for {split}; choose another split or add images"
        )
    return whole.take(np.sort(rows[split]))
