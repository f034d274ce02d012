"""Image files of any kind and size, as the pixels that a model of some resolution sees."""

import pathlib

import numpy as np
from PIL import Image, ImageOps

from igpt_jax.errors import InputError


def read_images(path: pathlib.Path, resolution: int) -> tuple[list[str], np.ndarray]:
    """Reads an image file, or all images of a folder and its sub-folders in the order of their names.

    The middle square of each is averaged down to the resolution, in pixels a side.
    Returns the names, and (b, resolution, resolution, 3) uint8 RGB.

    Raises:
      InputError: no image there, one that cannot be read, or one smaller than the resolution.
    """
    if path.is_dir():
        known = Image.registered_extensions()
        paths = sorted(file for file in path.rglob("*") if file.suffix.lower() in known)
    else:
        paths = [path]
    if not paths:
        raise InputError(f"{path} holds no images; name a file, or a folder of .png, .jpg, ...")
    return [str(file) for file in paths], np.stack([_square(file, resolution) for file in paths])


def read_mask(path: pathlib.Path, resolution: int) -> np.ndarray:
    """Reads which pixels to hide: the bright ones of a picture.  Returns (resolution, resolution) bool.

    Raises:
      InputError: a file that cannot be read, or a mask of another size.
    """
    mask = _open(path).convert("L")
    if mask.size != (resolution, resolution):
        width, height = mask.size
        raise InputError(
            f"the mask {path} has {width}x{height} pixels and the model {resolution}x{resolution}; "
            f"scale it to {resolution}x{resolution}, white where pixels are to be filled"
        )
    return np.asarray(mask) > 127


def _square(path, resolution):
    image = ImageOps.exif_transpose(_open(path)).convert("RGB")
    if min(image.size) < resolution:
        width, height = image.size
        raise InputError(f"{path} has {width}x{height} pixels; the model sees {resolution} a side; enlarge it")
    return np.asarray(ImageOps.fit(image, (resolution, resolution), Image.Resampling.BOX))


def _open(path):
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}; name an image or a folder of images") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}; convert it to PNG, or take it away") from error
    return image
