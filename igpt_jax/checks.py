"""Checks of images and tokens that callers pass to a palette or a codec."""

import numpy as np

from igpt_jax.errors import InputError


def check_squares(images: np.ndarray, side: int | None = None) -> np.ndarray:
    """Returns images as an array, if they are (b, r, r, 3) uint8.

    Args:
      images: what a caller passed.
      side: their r; None allows any.

    Raises:
      InputError: they have another dtype or shape.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise InputError(f"images are {images.dtype}; expected uint8 in 0..255; round and convert them first")
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise InputError(f"images have shape {images.shape}; expected (b, r, r, 3); crop them to a square first")
    if side and images.shape[1] != side:
        raise InputError(f"images have {images.shape[1]}x{images.shape[1]} pixels; resize them to {side}x{side} first")
    return images


def check_grid(tokens: np.ndarray, vocabulary: int, encoder: str) -> np.ndarray:
    """Returns tokens (b, r*r) as a grid (b, r, r), if they are integers in [0, vocabulary).

    Args:
      tokens: in raster order.
      vocabulary: the number of different tokens.
      encoder: what makes such tokens, for the message: "palette" or "codec".

    Raises:
      InputError: they have another dtype or shape, or one is out of range.
    """
    tokens = np.asarray(tokens)
    side = round(tokens.shape[-1] ** 0.5) if tokens.ndim == 2 else 0
    if tokens.ndim != 2 or side**2 != tokens.shape[1] or not np.issubdtype(tokens.dtype, np.integer):
        raise InputError(f"tokens are {tokens.dtype} of shape {tokens.shape}; expected integers (b, r*r)")
    if tokens.size and (tokens.min() < 0 or tokens.max() >= vocabulary):
        raise InputError(
            f"tokens span [{tokens.min()}, {tokens.max()}]; expected [0, {vocabulary - 1}]: "
            f"decode with the {encoder} that encoded them"
        )
    return tokens.reshape(len(tokens), side, side)
