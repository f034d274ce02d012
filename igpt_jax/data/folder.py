"""Images in a folder of one's own; class sub-folders give labels."""

import os
import pathlib

import numpy as np

from igpt_jax.data.records import FileSource
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SPLITS = {"train": ("train",), "test": ("test", "val", "validation")}


def split_folders(path: str) -> dict[str, pathlib.Path]:
    """The folder of every split that a folder has: its train/ and test/ (or val/, validation/), or itself as "train".

    Raises:
      InputError: there is no such folder.
    """
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {path}; give folder:PATH, a directory of JPEG, PNG or WebP files")
    found = {
        split: root / name for split, names in _SPLITS.items() for name in reversed(names) if (root / name).is_dir()
    }
    return found if set(found) == set(_SPLITS) else {"train": root}


def open_folder(root: pathlib.Path) -> FileSource:
    """Every JPEG, PNG and WebP below a folder, hidden ones aside, sorted by path.

    Where all of them lie in sub-folders, the first level of these, sorted, gives the labels.

    Raises:
      InputError: it holds no image.
    """
    paths = sorted(_images(root))
    if not paths:
        raise InputError(f"{root} holds no image; expected files that end in {', '.join(_SUFFIXES)}")
    classes = sorted({path.split(os.sep)[0] for path in paths}) if all(os.sep in path for path in paths) else []
    number = {name: i for i, name in enumerate(classes)}
    labels = tf.constant([number.get(path.split(os.sep)[0], 0) for path in paths], tf.int32)
    files = tf.constant([str(root / path) for path in paths])
    return FileSource(
        rows=np.arange(len(paths)),
        classes=len(classes),
        read=lambda rows: tf.gather(files, rows),
        parse=lambda row, file: (tf.io.read_file(file), labels[row]),
        name=lambda row: str(root / paths[row]),
    )


def _images(root):
    for directory, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                yield os.path.relpath(os.path.join(directory, file), root)
