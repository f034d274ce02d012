"""Sources of images by name, and their splits as the paper makes them."""

from collections.abc import Callable

import numpy as np

from igpt_jax.config import DataConfig
from igpt_jax.data.folder import open_folder, split_folders
from igpt_jax.data.prepared import open_split, prepare
from igpt_jax.data.records import Source
from igpt_jax.data.token_files import open_tokens
from igpt_jax.errors import InputError

SPLITS = ("train", "validation", "test")
_HELD_OUT = {"imagenet2012": 0.04, "photos": 0.0}  # of the training images; else a tenth
_PERMUTATION_SEED = 0


def load_source(config: DataConfig, split: str) -> Source:
    """Opens a split of `config.name`, preparing the data set first if need be.

    "train" and "validation" divide the training images by a fixed permutation: 4 % of ImageNet's are held out, none
    of photos', which overlap, and a tenth of any other set's (paper, section 3.1); `config.fold_validation` puts them
    back.  "test" is the set's own test split, or its validation split where the labels of the test images are not
    public or there are none; a set without either, such as a plain folder, gives a tenth of its images.

    Raises:
      InputError: an unknown name or split, an empty one, or what its files raise.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not known; choose one of {', '.join(SPLITS)}")
    kind, _, path = config.name.partition(":")
    if kind == "tokens":
        return open_tokens(path, split, fold_validation=config.fold_validation)
    if kind == "folder":
        folders = split_folders(path)
        return _divide(config, split, folders.keys(), lambda name: open_folder(folders[name]))
    builder = prepare(config.name, config.directory)
    return _divide(config, split, builder.info.splits.keys(), lambda name: open_split(builder, name))


def split_names(config: DataConfig) -> tuple[str, ...]:
    """The splits that a set of images has: without "validation" where nothing is held out."""
    return SPLITS if _held_out(config) else ("train", "test")


def _held_out(config):
    return 0.0 if config.fold_validation else _HELD_OUT.get(config.name, 0.1)


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
