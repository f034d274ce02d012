"""Sets of images from files: a folder of pictures, an array in OpenAI's format, or token files."""

import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from igpt_jax.data.token_files import open_tokens
from igpt_jax.errors import InputError
from igpt_jax.storage import as_path, local_copy

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def read_images(place: str, split: str = "train") -> np.ndarray:
    """Reads a whole set of images.

    Args:
      place: a folder, whose pictures are read in the order of their paths, those in subfolders included; an .npz file
        with `arr_0`, (n, h, w, 3) uint8, such as OpenAI's sample batches; or tokens:DIRECTORY.
      split: of a directory of token files.

    Returns:
      (n, h, w, 3) uint8 RGB.

    Raises:
      InputError: there is no such set, or its pictures differ in size.
    """
    if place.startswith("tokens:"):
        return _read_tokens(place.removeprefix("tokens:"), split)
    path = local_copy(as_path(place)).expanduser()
    if path.suffix == ".npz":
        return _read_array(path)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"{place} has no pictures; give a folder with {', '.join(SUFFIXES)}, an .npz or tokens:DIR")
    return np.stack(list(_pictures(files)))


def array_names(path: pathlib.Path) -> list[str]:
    """The names of the arrays in an .npz file.

    Raises:
      InputError: it is no such file.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return list(arrays.files)
    except Exception as error:  # numpy reads the header with Python's own parser, which raises many kinds of errors
        raise InputError(f"{path} is no .npz file that can be read ({error}); save it again with np.savez") from error


def _pictures(files: list[pathlib.Path]) -> Iterator[np.ndarray]:
    """Yields the pixels of each file, (h, w, 3) uint8, all of one size."""
    size = None
    for file in files:
        try:
            with Image.open(file) as picture:
                pixels = np.asarray(picture.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise InputError(f"{file} cannot be decoded ({error}); remove it") from error
        size = size or pixels.shape
        if pixels.shape != size:
            raise InputError(
                f"{file} is {pixels.shape[1]}x{pixels.shape[0]}, and others are {size[1]}x{size[0]}; "
                "resize all to the same size"
            )
        yield pixels


def _read_array(path: pathlib.Path) -> np.ndarray:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            images = arrays["arr_0"]
    except Exception as error:  # numpy reads the header with Python's own parser, which raises many kinds of errors
        raise InputError(f"{path} holds no images under the name arr_0 ({error}); save them as arr_0") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(f"{path}: arr_0 is {images.dtype} of shape {images.shape}; expected uint8 (n, h, w, 3)")
    return images


def _read_tokens(directory: str, split: str) -> np.ndarray:
    source = open_tokens(directory, split)
    if source.palette is None:
        raise InputError(f"the tokens of {directory} come without a palette, so they have no colors to compare")
    return source.palette.decode(source.read(np.arange(len(source))))
