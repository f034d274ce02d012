"""Encoded images to pixels: the size from the header first, then only the part of the image that is needed."""

import io
import struct

import numpy as np
from PIL import Image

from igpt_jax.data.tensorflow import tf

_REDUCTION = 3.0  # what resampling must still do after a reduced decoding
_MARGIN = 2  # pixels about the box: at the edge of what it decodes, libjpeg interpolates color from less
_HEAD = 4096  # bytes in which a file says that it has EXIF data
_ORIENTATION = 0x0112  # the EXIF tag


def size(encoded: tf.Tensor) -> tf.Tensor:
    """The height and width of a JPEG, PNG or WebP, (2,) int32, from its header alone.

    encoded: () string.  Fails with a TensorFlow error, in graph mode too, where there is no such header.
    """
    return tf.cond(
        _is_jpeg(encoded),
        lambda: _jpeg_size(encoded),
        lambda: tf.cond(_is_png(encoded), lambda: _png_size(encoded), lambda: _other_size(encoded)),
    )


def decode_box(encoded: tf.Tensor, box: tf.Tensor, *, resolution: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes what a resampling of `box` to resolution x resolution will read.

    Of a JPEG, only the window around the box; and at a half, a quarter or an eighth of its scale where the box stays at
    least three times the resolution: libjpeg's reduced cosine transform is no exact average, but the area average of
    its output then differs from that of the whole decoding by half a level to one level of 255 on average, a fifth to
    two fifths of what the choice between an area and a bilinear filter changes.  PNG and WebP are decoded whole.

    encoded: () string.  box: (4,) float32, top, left, height and width in pixels of the whole image.
    Returns the window (h, w, 3) uint8 RGB, and the box in pixels of the window.  Alpha is dropped, gray repeated.
    """
    reduction = tf.reduce_min(box[2:]) / resolution / _REDUCTION
    octave = tf.reduce_sum(tf.cast(reduction >= [2.0, 4.0, 8.0], tf.int32))
    kind = tf.where(_is_jpeg(encoded), octave, tf.where(_is_png(encoded), 4, 5))
    jpegs = [lambda scale=scale: _decode_jpeg(encoded, box / scale, scale) for scale in (1, 2, 4, 8)]
    return tf.switch_case(kind, [*jpegs, lambda: (_decode_png(encoded), box), lambda: (_decode_other(encoded), box)])


def upright(image: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors a square cut from a decoded image as the EXIF orientation of the file asks, if it has one.

    image: (r, r, 3).  encoded: () string, the file's bytes.  Returns (r, r, 3).
    """
    has_exif = tf.strings.regex_full_match(tf.strings.substr(encoded, 0, _HEAD), r"\C*(Exif|eXIf|VP8X)\C*")
    asked = tf.cond(
        has_exif, lambda: tf.numpy_function(_orientation, [encoded], tf.int32, stateful=False), lambda: tf.constant(1)
    )
    asked = tf.ensure_shape(asked, ())
    image = tf.cond(asked >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    image = tf.cond(tf.reduce_any(asked == [2, 3, 6, 7]), lambda: image[:, ::-1], lambda: image)
    return tf.cond(tf.reduce_any(asked == [3, 4, 7, 8]), lambda: image[::-1], lambda: image)


def check_size(height_width: tf.Tensor, max_pixels: int) -> tf.Operation:
    """Fails with InvalidArgumentError, in graph mode too, where an image is empty or has too many pixels to decode."""
    pixels = tf.reduce_prod(tf.cast(height_width, tf.int64))
    return tf.debugging.Assert((pixels > 0) & (pixels <= max_pixels), [pixels])


def diagnose(encoded: bytes, max_pixels: int) -> str:
    """Says in a few words why an image cannot be decoded."""
    try:
        height, width = size(tf.constant(encoded)).numpy()
    except (tf.errors.OpError, OSError, Image.DecompressionBombError):
        return "it is not a whole JPEG, PNG or WebP" if encoded else "it cannot be read"
    if not 0 < int(height) * int(width) <= max_pixels:
        return f"its header says {width}x{height} pixels, and data.max_pixels={max_pixels}"
    return "it is truncated or damaged"


def _is_jpeg(encoded):
    return tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff"


def _is_png(encoded):
    return tf.strings.substr(encoded, 0, 4) == b"\x89PNG"


def _jpeg_size(encoded):
    return tf.io.extract_jpeg_shape(encoded)[:2]


def _png_size(encoded):
    width_height = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    return tf.ensure_shape(width_height, (2,))[::-1]


def _other_size(encoded):
    return tf.ensure_shape(tf.numpy_function(_pillow_size, [encoded], tf.int32, stateful=False), (2,))


def _pillow_size(encoded):
    with _open(encoded, "WEBP") as image:
        return np.array([image.height, image.width], np.int32)


def _orientation(encoded):
    try:
        with _open(encoded, "JPEG", "PNG", "WEBP") as image:
            asked = image.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError, struct.error):  # EXIF data that are damaged
        asked = None
    return np.int32(asked if asked in range(1, 9) else 1)


def _decode_jpeg(encoded, box, scale):
    whole = -(-_jpeg_size(encoded) // scale)  # libjpeg rounds the reduced size up
    start = tf.clip_by_value(tf.cast(box[:2], tf.int32) - _MARGIN, 0, whole - 1)
    stop = tf.clip_by_value(tf.cast(tf.math.ceil(box[:2] + box[2:]), tf.int32) + _MARGIN, start + 1, whole)
    window = tf.concat([start, stop - start], axis=0)
    image = tf.io.decode_and_crop_jpeg(encoded, window, channels=3, ratio=scale, dct_method="INTEGER_ACCURATE")
    return image, tf.concat([box[:2] - tf.cast(start, tf.float32), box[2:]], axis=0)


def _decode_png(encoded):
    return tf.io.decode_png(encoded, channels=3)


def _decode_other(encoded):
    # Pillow, since TensorFlow's WebP decoder writes past its buffer on animations.
    image = tf.numpy_function(_pillow_pixels, [encoded], tf.uint8, stateful=False)
    return tf.ensure_shape(image, (None, None, 3))


def _pillow_pixels(encoded):
    with _open(encoded, "WEBP") as image:
        return np.asarray(image.convert("RGB"))


def _open(encoded, *formats):
    # Outside of a graph it is a numpy array, of an object or of so many bytes.
    is_object = isinstance(encoded, np.ndarray) and encoded.dtype.kind == "O"
    return Image.open(io.BytesIO(encoded.item() if is_object else encoded), formats=formats)
