"""Augmentations as stateless TensorFlow ops: which box of an image is used, and what then happens to its pixels.

Each is a box and a finish.  The box is cut out and resampled to the model's resolution in one pass, so the resized
image of the paper's recipe is never made: a 224 x 224 crop of an image whose shorter side was resized to s is the box
of 224 / s of that side.
"""

import dataclasses
from collections.abc import Callable

from igpt_jax.config import DataConfig
from igpt_jax.data.decode import check_size, decode_box, size, upright
from igpt_jax.data.resample import resample
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError

_SHORTER_SIDE = (256, 384)  # pixels, both included (paper, section 3.1)
_CROP = 224  # pixels
_PAD = 4  # pixels of 32
_NOT_PLACED = "data.augmentation=place is for images of one small size, such as digits; choose another"


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """An image and a seed in, an image of the model's resolution out; the same ones for the same seed.

    Attributes:
      resolution: pixels a side of what comes out.
      kernel: of the resampling; a key of `resample.KERNELS`.
      max_pixels: encoded images with more are refused before they are decoded.
      upright: encoded images are turned as their EXIF data ask, which people's own need; data sets' loaders never do.
      box: from height and width (2,) int32 and a seed to top, left, height, width (4,) float32; None: the whole image.
      finish: from (resolution, resolution, 3) uint8 and a seed to the same shape; None: nothing more.
    """

    resolution: int
    kernel: str
    max_pixels: int
    upright: bool
    box: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None
    finish: Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor] | None = None

    @property
    def is_random(self) -> bool:
        """Whether another seed gives another image."""
        return self.box not in (None, central_square) or self.finish is not None

    def of_pixels(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """image: (h, w, 3) uint8 RGB.  seed: (2,) integers.  Returns (resolution, resolution, 3) uint8.

        Raises InputError, while the graph is built, where the images' shape cannot be used.
        """
        if self.box and image.shape[:2] != (self.resolution, self.resolution):
            image = self._resample(image, self.box(tf.shape(image)[:2], seed))
        return self._finish(image, seed)

    def of_encoded(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """The same for a JPEG, PNG or WebP file's bytes, of which no more is decoded than is needed.

        Fails with a TensorFlow error in the graph where the bytes are no such image or its size is refused.
        """
        if not self.box:
            raise InputError(_NOT_PLACED)
        height_width = size(encoded)
        with tf.control_dependencies([check_size(height_width, self.max_pixels)]):
            box = self.box(height_width, seed)
        image = self._resample(*decode_box(encoded, box, resolution=self.resolution))
        return self._finish(upright(image, encoded) if self.upright else image, seed)

    def _resample(self, image, box):
        return resample(image, box, resolution=self.resolution, kernel=self.kernel)

    def _finish(self, image, seed):
        image = self.finish(image, seed, self.resolution) if self.finish else image
        return tf.ensure_shape(image, (self.resolution, self.resolution, 3))


def central_square(height_width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The largest square about the center: what is left of "shorter side to 224, center crop of 224 x 224"."""
    del seed
    height_width = tf.cast(height_width, tf.float32)
    side = tf.reduce_min(height_width)
    return tf.concat([(height_width - side) / 2, [side, side]], axis=0)


def random_crop(height_width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A random 224 x 224 crop after a resize that made the shorter side 256 to 384 pixels, all equally often."""
    shorter, top, left = tf.unstack(tf.random.stateless_uniform((3,), seed))
    least, greatest = _SHORTER_SIDE
    height_width = tf.cast(height_width, tf.float32)
    scale = (least + tf.floor(shorter * (greatest - least + 1))) / tf.reduce_min(height_width)
    resized = tf.round(height_width * scale)
    corner = tf.floor(tf.stack([top, left]) * (resized - _CROP + 1))
    return tf.concat([corner, [_CROP, _CROP]], axis=0) * tf.tile(height_width / resized, [2])


def flip(image: tf.Tensor, seed: tf.Tensor, resolution: int) -> tf.Tensor:
    """Mirrors every other image left to right."""
    del resolution
    return tf.image.stateless_random_flip_left_right(image, seed)


def pad_crop_flip(image: tf.Tensor, seed: tf.Tensor, resolution: int) -> tf.Tensor:
    """A crop, at random, of the image reflected by an eighth of its side (4 of 32 pixels), or of its mirror image."""
    pad = max(1, round(_PAD * resolution / 32))
    padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]], mode="REFLECT")
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed))
    crop = tf.image.stateless_random_crop(padded, (resolution, resolution, 3), crop_seed)
    return tf.image.stateless_random_flip_left_right(crop, flip_seed)


def place(image: tf.Tensor, seed: tf.Tensor, resolution: int) -> tf.Tensor:
    """Places a small image on a black canvas, at each of the (resolution - side + 1)**2 positions equally often."""
    side = image.shape[0]
    if side is None:
        raise InputError(_NOT_PLACED)
    if image.shape[1] != side or resolution < side:
        raise InputError(
            f"model.resolution={resolution} is smaller than the {side}x{image.shape[1]} images; set {side} or more"
        )
    free = resolution - side
    top, left = tf.unstack(tf.random.stateless_uniform((2,), seed, maxval=free + 1, dtype=tf.int32))
    return tf.pad(image, [[top, free - top], [left, free - left], [0, 0]])


_RECIPES = {  # config.data.augmentation: (box, finish) in training; evaluation takes the central square
    "none": (central_square, None),
    "flip": (central_square, flip),
    "crop": (random_crop, None),
    "pad_crop_flip": (central_square, pad_crop_flip),
    "place": (None, place),
}
_PAPER = {
    "digits": "place",
    "emoji": "none",
    "photographs": "none",
    "blended_digits": "place",
    "cifar10": "none",
    "cifar100": "none",
    "stl10": "none",
}


def augmentations(config: DataConfig, resolution: int) -> tuple[Augmentation, Augmentation]:
    """The augmentations for training and for evaluation, at a resolution in pixels a side.

    `config.augmentation` "auto" is what the paper does with the source: nothing to CIFAR and STL-10 while pretraining
    and probing, random crops of everything else (paper, section 3.1).
    """
    name = _PAPER.get(config.name, "crop") if config.augmentation == "auto" else config.augmentation
    box, finish = _RECIPES[name]
    common = {
        "resolution": resolution,
        "kernel": config.filter,
        "max_pixels": config.max_pixels,
        "upright": config.name.startswith("folder:"),
    }
    evaluation = Augmentation(**common, box=central_square) if box else Augmentation(**common, finish=finish)
    return Augmentation(**common, box=box, finish=finish), evaluation
