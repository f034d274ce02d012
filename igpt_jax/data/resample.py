"""Resamples a box of an image to the model's resolution, with antialiasing, as two small matmuls."""

from collections.abc import Callable

from igpt_jax.data.tensorflow import tf

# From where the box starts along one axis and its length, in pixels, the size of the image and the resolution to the
# weights (resolution, size) of the matmul along that axis; each row sums to 1.
_Weights = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, int], tf.Tensor]


def resample(image: tf.Tensor, box: tf.Tensor, *, resolution: int, kernel: str) -> tf.Tensor:
    """Shrinks or enlarges a box of an image to a square, and rounds to the nearest uint8 level.

    "area" averages exactly the part of the image that each output pixel covers.  "bilinear" and "bicubic" (Keys, a =
    -1/2) are those of Pillow: the kernel is widened by the factor of the reduction, which avoids aliasing, and cut off
    at the edge of the image.

    Args:
      image: (h, w, 3) uint8 in 0..255.
      box: (4,) float32, top, left, height and width in pixels; fractions are allowed.
      resolution: side of the result, in pixels.
      kernel: a key of `KERNELS`.

    Returns:
      (resolution, resolution, 3) uint8 in 0..255.
    """
    weights = KERNELS[kernel]
    height, width = tf.unstack(tf.shape(image)[:2])
    top, left, box_height, box_width = tf.unstack(box)
    rows = weights(top, box_height, height, resolution)
    columns = weights(left, box_width, width, resolution)
    pixels = tf.reshape(tf.cast(image, tf.float32), (height, width * 3))
    shrunk = tf.matmul(columns, tf.reshape(tf.matmul(rows, pixels), (resolution, width, 3)))
    return tf.cast(tf.clip_by_value(tf.floor(shrunk + 0.5), 0, 255), tf.uint8)


def _area(start: tf.Tensor, length: tf.Tensor, size: tf.Tensor, resolution: int) -> tf.Tensor:
    edges = start + length / resolution * tf.range(resolution + 1, dtype=tf.float32)
    pixels = tf.range(size, dtype=tf.float32)
    overlap = tf.minimum(edges[1:, None], pixels + 1) - tf.maximum(edges[:-1, None], pixels)
    return _normalize(tf.nn.relu(overlap))


def _widened(kernel: Callable[[tf.Tensor], tf.Tensor]) -> _Weights:
    def weights(start: tf.Tensor, length: tf.Tensor, size: tf.Tensor, resolution: int) -> tf.Tensor:
        step = length / resolution
        centers = start + step * (tf.range(resolution, dtype=tf.float32) + 0.5)
        pixels = tf.range(size, dtype=tf.float32) + 0.5
        return _normalize(kernel(tf.abs(pixels - centers[:, None]) / tf.maximum(step, 1.0)))

    return weights


def _triangle(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.relu(1 - x)


def _keys(x: tf.Tensor) -> tf.Tensor:
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return tf.where(x < 1, near, tf.where(x < 2, far, 0.0))


def _normalize(weights: tf.Tensor) -> tf.Tensor:
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


KERNELS: dict[str, _Weights] = {"area": _area, "bilinear": _widened(_triangle), "bicubic": _widened(_keys)}
