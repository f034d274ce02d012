"""Reads masks from image files: white marks the pixels to fill in."""

import pathlib

import numpy as np
from PIL import Image

from igpt_jax.errors import InputError


def read_mask(path: pathlib.Path, resolution: int) -> np.ndarray:
    """Reads a mask from an image file: pixels with a gray level above 127 are to be filled in.

    Args:
      path: an image file of resolution x resolution pixels, in any format that Pillow reads.
      resolution: side of the images that the model sees, in pixels.

    Returns:
      (resolution, resolution) bool, True where a pixel is to be filled in.

    Raises:
      InputError: the file cannot be read, or the mask has another size.
    """
    try:
        with Image.open(path) as image:
            size = image.size
            mask = np.asarray(image.convert("L")) > 127 if size == (resolution, resolution) else None
    except FileNotFoundError:
        raise InputError(f"there is no file {path}; name a PNG, white where pixels are to be filled") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an image: {error}; convert it to PNG") from error
    if mask is None:
        width, height = size
        raise InputError(
            f"the mask {path} has {width}x{height} pixels and the model {resolution}x{resolution}; "
            f"scale it to {resolution}x{resolution}, white where pixels are to be filled"
        )
    return mask
