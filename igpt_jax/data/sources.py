"""Sources of images by name, and their splits as the paper makes them."""

import dataclasses
from collections.abc import Callable

import numpy as np

from igpt_jax.config import DataConfig
from igpt_jax.data.builders import describe_emoji
from igpt_jax.data.folder import open_folder, split_folders
from igpt_jax.data.photographs import open_photographs
from igpt_jax.data.prepared import open_split, prepare
from igpt_jax.data.records import BlendedSource, Source
from igpt_jax.data.token_files import open_tokens
from igpt_jax.errors import InputError

SPLITS = ("train", "validation", "test")
_PERMUTATION_SEED = 0


def load_source(config: DataConfig, split: str) -> Source:
    """Opens a split of `config.name`, preparing the data set first if need be.

    "train" and "validation" divide the training images by a fixed permutation: 4 % of ImageNet's are held out, and a
    tenth of any other set's (paper, section 3.1); `config.fold_validation` puts them back.  "test" is the set's own
    test split, or its validation split where the labels of the test images are not public or there are none; a set
    without either, such as a plain folder, gives a tenth of its images.  Emoji and photographs have three splits of
    their own; blended digits are those of digits on those of photographs.

    Raises:
      InputError: an unknown name or split, an empty one, or what its files raise.
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
        return _divide(config, split, folders.keys(), lambda name: open_folder(folders[name]))
    if kind == "photographs":
        return open_photographs(split, fold_validation=config.fold_validation)
    if kind == "blended_digits":
        digits = load_source(dataclasses.replace(config, name="digits"), split)
        return BlendedSource(digits, open_photographs(split, fold_validation=config.fold_validation))
    if kind == "emoji":
        both = "train+validation" if split == "train" and config.fold_validation else split
        return open_split(prepare(config.name, config.directory, describe_emoji(config.emoji)), both)
    builder = prepare(config.name, config.directory)
    return _divide(config, split, builder.info.splits.keys(), lambda name: open_split(builder, name))


def split_names(config: DataConfig) -> tuple[str, ...]:
    """The splits that a set of images has: without "validation" where nothing is held out."""
    return SPLITS if _held_out(config) else ("train", "test")


def _held_out(config):
    if config.fold_validation:
        return 0.0
    return 0.04 if config.name == "imagenet2012" else 0.1  # of the training images


def _divide(config: DataConfig, split: str, available, open_one: Callable[[str], Source]) -> Source:
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
