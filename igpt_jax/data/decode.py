"""Decodes images: first the size from the header, then only the part of the image that is needed."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image

from igpt_jax.data.tensorflow import tf

_REDUCTION = 3.0  # resampling must still shrink the image by this factor after decoding at a reduced scale
_MARGIN = 2  # pixels around the box, since libjpeg interpolates chroma less exactly at the edge of what it decodes
_HEAD = 4096  # bytes at the start of a file that are searched for a sign of EXIF data
_ORIENTATION = 0x0112  # the EXIF tag
_PNG_HEADER = 24  # bytes of a PNG file up to the end of its size

_Encoded = Any  # the bytes of a file as tf.numpy_function passes them: bytes in a graph, an array in eager mode


def size(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the size of a JPEG, PNG or WebP image from its header alone.

    If there is no such header, the op fails with a TensorFlow error, in graph mode as well.

    Args:
      encoded: () string, the bytes of the file.

    Returns:
      Height and width in pixels, (2,) int32.
    """
    return tf.cond(
        _is_jpeg(encoded),
        lambda: _jpeg_size(encoded),
        lambda: tf.cond(_is_png(encoded), lambda: _png_size(encoded), lambda: _other_size(encoded)),
    )


def decode_box(encoded: tf.Tensor, box: tf.Tensor, *, resolution: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes the pixels that resampling `box` to resolution x resolution will read.

    For a JPEG, only a window around the box is decoded.  It is decoded at 1/2, 1/4 or 1/8 of its scale if the box then
    still has at least three times the resolution.  This is an approximation, because libjpeg's reduced cosine transform
    is not an exact average: after area averaging, the result differs from that of a full decode by half a level to one
    level of 255 on average.  Choosing the bilinear filter instead of the area filter changes 2.5 to 5 times as much.
    PNG and WebP are decoded whole.  Alpha is dropped and gray is repeated.

    Args:
      encoded: () string, the bytes of the file.
      box: (4,) float32, top, left, height and width in pixels of the whole image.
      resolution: side of the square that the box will be resampled to, in pixels.

    Returns:
      The decoded window (h, w, 3) uint8 RGB, and the box in pixels of that window, (4,) float32.
    """
    reduction = tf.reduce_min(box[2:]) / resolution / _REDUCTION
    octave = tf.reduce_sum(tf.cast(reduction >= [2.0, 4.0, 8.0], tf.int32))
    kind = tf.where(_is_jpeg(encoded), octave, tf.where(_is_png(encoded), 4, 5))
    jpegs = [lambda scale=scale: _decode_jpeg(encoded, box / scale, scale) for scale in (1, 2, 4, 8)]
    return tf.switch_case(kind, [*jpegs, lambda: (_decode_png(encoded), box), lambda: (_decode_other(encoded), box)])


def upright(image: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Rotates and mirrors a square according to the EXIF orientation of its file, if there is one.

    Args:
      image: (r, r, 3), cut from the decoded image.
      encoded: () string, the bytes of the file.

    Returns:
      The upright image, (r, r, 3).
    """
    has_exif = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, _HEAD), r"\C*(Exif|eXIf|VP8X)\C*")
    orientation = tf.cond(
        has_exif, lambda: tf.numpy_function(_orientation, [encoded], tf.int32, stateful=False), lambda: tf.constant(1)
    )
    orientation = tf.ensure_shape(orientation, ())
    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(tf.reduce_any(orientation == [2, 3, 6, 7]), lambda: image[:, ::-1], lambda: image)
    return tf.cond(tf.reduce_any(orientation == [3, 4, 7, 8]), lambda: image[::-1], lambda: image)


def check_size(height_width: tf.Tensor, max_pixels: int) -> tf.Operation:
    """An assertion that fails with InvalidArgumentError if an image is empty or has more than `max_pixels` pixels."""
    pixels = tf.reduce_prod(tf.cast(height_width, tf.int64))
    return tf.debugging.Assert((pixels > 0) & (pixels <= max_pixels), [pixels])


def diagnose(encoded: bytes, max_pixels: int) -> str:
    """Explains why an image cannot be decoded, as the end of an error message."""
    try:
        height, width = size(tf.constant(encoded)).numpy()
    except (tf.errors.OpError, OSError, Image.DecompressionBombError):
        height = width = 0
    if not (height and width):
        return "it is not a whole JPEG, PNG or WebP" if encoded else "it cannot be read"
    if not 0 < int(height) * int(width) <= max_pixels:
        return f"its header says {width}x{height} pixels, and data.max_pixels={max_pixels}"
    return "it is truncated or damaged"


def _is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"


def _is_png(encoded: tf.Tensor) -> tf.Tensor:
    whole = tf.strings.length(encoded) >= _PNG_HEADER  # TensorFlow quotes a shorter file in an error that is no UTF-8
    return whole & (tf.strings.substr(encoded, 0, 4) == b"\x89PNG")


def _jpeg_size(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.extract_jpeg_shape(encoded)[:2]


def _png_size(encoded: tf.Tensor) -> tf.Tensor:
    width_height = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    return tf.ensure_shape(width_height, (2,))[::-1]


def _other_size(encoded: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.numpy_function(_pillow_size, [encoded], tf.int32, stateful=False), (2,))


# An exception in a function that TensorFlow calls would print a traceback, whoever catches it.  So these two return
# nothing of no size, which the graph refuses.
def _pillow_size(encoded: _Encoded) -> np.ndarray:
    try:
        with _open(encoded, "WEBP") as image:
            return np.array([image.height, image.width], np.int32)
    except Exception:  # what Pillow raises on damaged files is anything
        return np.zeros(2, np.int32)


def _orientation(encoded: _Encoded) -> np.int32:
    try:
        with _open(encoded, "JPEG", "PNG", "WEBP") as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, struct.error):  # the EXIF data are damaged
        orientation = 1
    return np.int32(orientation if orientation in range(1, 9) else 1)


def _decode_jpeg(encoded: tf.Tensor, box: tf.Tensor, scale: int) -> tuple[tf.Tensor, tf.Tensor]:
    whole = -(-_jpeg_size(encoded) // scale)  # libjpeg rounds the reduced size up
    start = tf.clip_by_value(tf.cast(box[:2], tf.int32) - _MARGIN, 0, whole - 1)
    stop = tf.clip_by_value(tf.cast(tf.math.ceil(box[:2] + box[2:]), tf.int32) + _MARGIN, start + 1, whole)
    window = tf.concat([start, stop - start], axis=0)
    image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3, ratio=scale, dct_method="INTEGER_ACCURATE")
    return image, tf.concat([box[:2] - tf.cast(start, tf.float32), box[2:]], axis=0)


def _decode_png(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_png(encoded, channels=3)


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    # Pillow, because TensorFlow's WebP decoder writes past its buffer on animations.
    image = tf.numpy_function(_pillow_pixels, [encoded], tf.uint8, stateful=False)
    with tf.control_dependencies([tf.debugging.Assert(tf.size(image) > 0, [tf.shape(image)])]):
        return tf.ensure_shape(image, (None, None, 3))


def _pillow_pixels(encoded: _Encoded) -> np.ndarray:
    try:
        with _open(encoded, "WEBP") as image:
            return np.asarray(image.convert("RGB"))
    except Exception:  # likewise
        return np.zeros((0, 0, 3), np.uint8)


def _open(encoded: _Encoded, *formats: str) -> Image.Image:
    # The array of eager mode holds a bytes object, or is of dtype S and is a buffer itself.
    is_object = isinstance(encoded, np.ndarray) and encoded.dtype.kind == "O"
    return Image.open(io.BytesIO(encoded.item() if is_object else encoded), formats=formats)
