"""Reads the user's own image files: a folder to train on, whose subfolders give labels, or a few images to process."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from igpt_jax.data.decode import size
from igpt_jax.data.records import FileSource
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError
from igpt_jax.storage import BUCKETS, as_path, files, in_bucket

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
    root = as_path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f"there is no folder {path!r}; give folder:PATH, a directory of JPEG, PNG or WebP files")
    folders = {
        split: root / name for split, names in _SPLITS.items() for name in reversed(names) if (root / name).is_dir()
    }
    return folders if set(folders) == set(_SPLITS) else {"train": root}


def open_folder(root: pathlib.Path, train: pathlib.Path | None = None) -> FileSource:
    """Opens every JPEG, PNG and WebP file below a folder, sorted by path, without hidden files and folders.

    If all of them are in subfolders, the names of the first level, sorted, are the classes.  Otherwise the images have
    no labels.

    Args:
      root: the folder.
      train: the folder of the training images, if it is another; its classes, in its order, are those of `root` too.

    Raises:
      InputError: the folder holds no image, or its classes are not those of the training images.
    """
    paths = _images(root)
    classes = _classes(paths)
    if train and train != root:
        known = _classes(_images(train))
        if unknown := sorted(set(classes) - set(known)) if known else []:
            raise InputError(f"{root} has the class {unknown[0]}, which {train} lacks; name the sub-folders alike")
        if known and not classes:
            raise InputError(f"{train} has a sub-folder for each class, and {root} has not; arrange both alike")
        classes = known
    number = {name: i for i, name in enumerate(classes)}
    labels = [number.get(path.split(os.sep)[0], 0) for path in paths]
    return _open_files([str(root / path) for path in paths], labels, len(classes), _reader(root))


def _classes(paths: Sequence[str]) -> list[str]:
    return sorted({path.split(os.sep)[0] for path in paths}) if all(os.sep in path for path in paths) else []


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
            height, width = size(_reader(path)(image)).numpy()
            if 0 < min(height, width) < resolution:
                raise InputError(f"{image} has {width}x{height} pixels; the model sees {resolution} a side; enlarge it")
    return _open_files(paths, [0] * len(paths), 0, _reader(path))


def _open_files(
    paths: Sequence[str], labels: Sequence[int], classes: int, read_file: Callable[[tf.Tensor], tf.Tensor]
) -> FileSource:
    names, targets = tf.constant(paths), tf.constant(labels, tf.int32)
    return FileSource(
        rows=np.arange(len(paths)),
        classes=classes,
        read=lambda rows: tf.gather(names, rows),
        parse=lambda row, name: (read_file(name), targets[row]),
        name=lambda row: paths[row],
    )


def _read_from_bucket(path: str | tf.Tensor) -> tf.Tensor:
    """Does what `tf.io.read_file` does, which not every build of TensorFlow can do for buckets."""
    content = tf.numpy_function(
        lambda name: files().cat_file(tf.compat.as_str(np.asarray(name).item())), [path], tf.string, stateful=False
    )
    return tf.ensure_shape(content, ())


def _images(root: pathlib.Path) -> list[str]:
    paths = sorted(_walk(root))
    if not paths:
        raise InputError(f"{root} holds no image; expected files that end in {', '.join(_SUFFIXES)}")
    return paths


def _reader(root: pathlib.Path) -> Callable[[str | tf.Tensor], tf.Tensor]:
    return _read_from_bucket if in_bucket(root) else tf.io.read_file


def _walk(root: pathlib.Path) -> Iterator[str]:
    if in_bucket(root):
        for name in files().find(str(root)):
            path = str(pathlib.PurePosixPath(name).relative_to(str(root).removeprefix(BUCKETS)))
            if path.lower().endswith(_SUFFIXES) and not any(part.startswith(".") for part in path.split("/")):
                yield path
        return
    seen: set[str] = set()  # a link may lead back
    for directory, folders, names in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(directory))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(directory, name)) not in seen
        ]
        for file in names:
            if file.lower().endswith(_SUFFIXES) and not file.startswith("."):
                yield os.path.relpath(os.path.join(directory, file), root)
