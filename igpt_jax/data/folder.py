"""Reads the user's own image files: a folder to train on, whose subfolders give labels, or a few images to process."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from igpt_jax.data.decode import size
from igpt_jax.data.records import FileSource
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_SPLITS = {"train": ("train",), "test": ("test", "val", "validation")}


def split_folders(path: str) -> dict[str, pathlib.Path]:
    """Finds the splits of a folder of images.

    Args:
      path: a folder.  "~" is expanded.

    Returns:
      Each split's folder.  A folder with both train/ and test/ (or val/ or validation/) has the splits "train" and
      "test"; any other folder is "train" itself.

    Raises:
      InputError: there is no such folder.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f"there is no folder {path!r}; give folder:PATH, a directory of JPEG, PNG or WebP files")
    folders = {
        split: root / name for split, names in _SPLITS.items() for name in reversed(names) if (root / name).is_dir()
    }
    return folders if set(folders) == set(_SPLITS) else {"train": root}


def open_folder(root: pathlib.Path) -> FileSource:
    """Opens every JPEG, PNG and WebP file below a folder, sorted by path, without hidden files and folders.

    If all of them are in subfolders, the names of the first level, sorted, are the classes.  Otherwise the images have
    no labels.

    Raises:
      InputError: the folder holds no image.
    """
    paths = _images(root)
    classes = sorted({path.split(os.sep)[0] for path in paths}) if all(os.sep in path for path in paths) else []
    number = {name: i for i, name in enumerate(classes)}
    labels = [number.get(path.split(os.sep)[0], 0) for path in paths]
    return _open_files([str(root / path) for path in paths], labels, len(classes))


def open_images(path: pathlib.Path, resolution: int) -> FileSource:
    """Opens one image file, or every one below a folder, without labels.

    Args:
      path: a JPEG, PNG or WebP file, or a folder of them; their order is that of their paths.
      resolution: side of the images that the model sees, in pixels.

    Returns:
      The images, in order.

    Raises:
      InputError: there is no such path, the folder holds no image, or an image has a side of fewer pixels than
        `resolution`.
    """
    if path.is_dir():
        paths = [str(path / image) for image in _images(path)]
    elif path.exists():
        paths = [str(path)]
    else:
        raise InputError(f"there is no file {path}; name an image or a folder of images")
    for image in paths:
        with contextlib.suppress(tf.errors.OpError, OSError):  # damaged files are reported when they are decoded
            height, width = size(tf.io.read_file(image)).numpy()
            if 0 < min(height, width) < resolution:
                raise InputError(f"{image} has {width}x{height} pixels; the model sees {resolution} a side; enlarge it")
    return _open_files(paths, [0] * len(paths), classes=0)


def _open_files(paths: Sequence[str], labels: Sequence[int], classes: int) -> FileSource:
    files, targets = tf.constant(paths), tf.constant(labels, tf.int32)
    return FileSource(
        rows=np.arange(len(paths)),
        classes=classes,
        read=lambda rows: tf.gather(files, rows),
        parse=lambda row, file: (tf.io.read_file(file), targets[row]),
        name=lambda row: paths[row],
    )


def _images(root: pathlib.Path) -> list[str]:
    paths = sorted(_walk(root))
    if not paths:
        raise InputError(f"{root} holds no image; expected files that end in {', '.join(_SUFFIXES)}")
    return paths


def _walk(root: pathlib.Path) -> Iterator[str]:
    for directory, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in files:
            if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                yield os.path.relpath(os.path.join(directory, file), root)
