"""Augmentations as stateless TensorFlow ops: an image and a seed in, an image of the model's resolution out."""

import functools
from collections.abc import Callable

from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError

Augmentation = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def place(image: tf.Tensor, seed: tf.Tensor, *, resolution: int) -> tf.Tensor:
    """Places the image on a black canvas, at each of the (resolution - side + 1)**2 positions equally often.

    image: (side, side, 3) uint8.  seed: (2,) integers.  Returns (resolution, resolution, 3) uint8.

    Raises:
      InputError: a resolution below the image's.
    """
    side = image.shape[0]
    if resolution < side:
        raise InputError(f"model.resolution={resolution} is smaller than the {side}x{side} images; set {side} or more")
    free = resolution - side
    top, left = tf.unstack(tf.random.stateless_uniform((2,), seed, maxval=free + 1, dtype=tf.int32))
    canvas = tf.pad(image, [[top, free - top], [left, free - left], [0, 0]])
    return tf.ensure_shape(canvas, (resolution, resolution, 3))


def flip(image: tf.Tensor, seed: tf.Tensor, *, resolution: int) -> tf.Tensor:
    """Mirrors every other image left to right.

    image: (resolution, resolution, 3) uint8.  seed: (2,) integers.  Returns the image's shape and dtype.

    Raises:
      InputError: another resolution than the image's.
    """
    return tf.image.stateless_random_flip_left_right(identity(image, seed, resolution=resolution), seed)


def identity(image: tf.Tensor, seed: tf.Tensor, *, resolution: int) -> tf.Tensor:
    """Leaves the image alone, whatever the seed.

    Raises:
      InputError: another resolution than the image's.
    """
    side = image.shape[0]
    if resolution != side:
        raise InputError(f"model.resolution={resolution} differs from the {side}x{side} images; set {side}")
    return image


AUGMENTATIONS = {  # source: (for training, for evaluation)
    "digits": (place, place),
    "photos": (flip, identity),
}


def augmentations(name: str, resolution: int) -> tuple[Augmentation, Augmentation]:
    """The augmentations of a source for training and for evaluation, at a resolution in pixels a side.

    Each maps an image (h, w, 3) uint8 and a seed (2,) of integers to (resolution, resolution, 3) uint8.

    Raises:
      InputError: an unknown source; when called, a resolution that the images cannot take.
    """
    if name not in AUGMENTATIONS:
        raise InputError(f"data.name={name!r} has no augmentations; choose one of {', '.join(AUGMENTATIONS)}")
    train, test = AUGMENTATIONS[name]
    return functools.partial(train, resolution=resolution), functools.partial(test, resolution=resolution)
