"""Image files of one's own: a folder to train on, whose sub-folders give labels, or a few to look at."""

import contextlib
import os
import pathlib

import numpy as np

from igpt_jax.data.decode import size
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
    paths = _images(root)
    classes = sorted({path.split(os.sep)[0] for path in paths}) if all(os.sep in path for path in paths) else []
    number = {name: i for i, name in enumerate(classes)}
    labels = [number.get(path.split(os.sep)[0], 0) for path in paths]
    return _open_files([str(root / path) for path in paths], labels, len(classes))


def open_images(path: pathlib.Path, resolution: int) -> FileSource:
    """A JPEG, PNG or WebP file, or every one below a folder, sorted by path; without labels.

    Raises:
      InputError: there is nothing, a folder without an image, or an image with fewer pixels a side than `resolution`.
    """
    if path.is_dir():
        paths = [str(path / image) for image in _images(path)]
    elif path.exists():
        paths = [str(path)]
    else:
        raise InputError(f"there is no file {path}; name an image or a folder of images")
    for image in paths:
        with contextlib.suppress(tf.errors.OpError, OSError):  # what has no size is named when it is decoded
            height, width = size(tf.io.read_file(image)).numpy()
            if min(height, width) < resolution:
                raise InputError(f"{image} has {width}x{height} pixels; the model sees {resolution} a side; enlarge it")
    return _open_files(paths, [0] * len(paths), classes=0)


def _open_files(paths, labels, classes):
    files, labels = tf.constant(paths), tf.constant(labels, tf.int32)
    return FileSource(
        rows=np.arange(len(paths)),
        classes=classes,
        read=lambda rows: tf.gather(files, rows),
        parse=lambda row, file: (tf.io.read_file(file), labels[row]),
        name=lambda row: paths[row],
    )


def _images(root):
    paths = sorted(_walk(root))
    if not paths:
        raise InputError(f"{root} holds no image; expected files that end in {', '.join(_SUFFIXES)}")
    return paths


def _walk(root):
    for directory, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                yield os.path.relpath(os.path.join(directory, file), root)
