"""Augmentations as stateless TensorFlow ops: which box of an image is used, and what then happens to its pixels.

An augmentation has two parts, a box and a finish.  The box is cut out of the original image and resampled to the
model's resolution in one pass, so the paper's intermediate resized image is never created: a 224 x 224 crop of an image
whose shorter side was resized to s pixels is a box of 224 / s of that side in the original.
"""

import dataclasses
from collections.abc import Callable

from igpt_jax.config import DataConfig
from igpt_jax.data.decode import check_size, decode_box, size, upright
from igpt_jax.data.resample import resample
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError

_SHORTER_SIDE = (256, 384)  # pixels, both ends included (paper, section 3.1)
_CROP = 224  # pixels
_PAD = 4  # pixels on each side of a 32 x 32 image; scaled with the resolution

# From height and width (2,) int32 and a seed (2,) to the box: top, left, height, width (4,) float32, in pixels.
_Box = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# From (resolution, resolution, 3) uint8, a seed (2,) and the resolution to an image of the same shape.
_Finish = Callable[[tf.Tensor, tf.Tensor, int], tf.Tensor]

_NOT_PLACED = "data.augmentation=place is for images of one small size, such as digits; choose another"


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Turns an image into one of the model's resolution, as a pure function of the image and a seed.

    Attributes:
      resolution: side of the output, in pixels.
      kernel: resampling kernel, a key of `resample.KERNELS`.
      max_pixels: encoded images with more pixels than this are refused before they are decoded.
      upright: whether to apply the EXIF orientation of encoded images.  Users' own photographs need it; the loaders of
        published data sets never apply it.
      box: the part of the image to use, from height and width (2,) int32 and a seed to top, left, height and width
        (4,) float32; None passes the image on without resampling.
      finish: applied last, from (resolution, resolution, 3) uint8, a seed and the resolution to the same shape; None
        does nothing.
    """

    resolution: int
    kernel: str
    max_pixels: int
    upright: bool
    box: _Box | None = None
    finish: _Finish | None = None

    @property
    def is_random(self) -> bool:
        """Whether different seeds can give different images."""
        return self.box not in (None, central_square) or self.finish is not None

    def of_pixels(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments an image that is already decoded.

        Args:
          image: (h, w, 3) uint8 RGB in 0..255.
          seed: (2,) integers.

        Returns:
          (resolution, resolution, 3) uint8 RGB.

        Raises:
          InputError: the augmentation cannot use images of this shape (raised while the graph is built).
        """
        is_whole = self.box is central_square and image.shape[:2] == (self.resolution, self.resolution)
        if self.box and not is_whole:
            image = self._resample(image, self.box(tf.shape(image)[:2], seed))
        return self._finish(image, seed)

    def of_encoded(self, encoded: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Augments a JPEG, PNG or WebP file, decoding no more of it than the box needs.

        If the bytes are not such an image, or it has more than `max_pixels`, the graph fails with a TensorFlow error
        when it runs.

        Args:
          encoded: () string, the bytes of the file.
          seed: (2,) integers.

        Returns:
          (resolution, resolution, 3) uint8 RGB.

        Raises:
          InputError: the augmentation places images without resampling, which needs images of one known size.
        """
        if not self.box:
            raise InputError(_NOT_PLACED)
        height_width = size(encoded)
        with tf.control_dependencies([check_size(height_width, self.max_pixels)]):
            box = self.box(height_width, seed)
        image = self._resample(*decode_box(encoded, box, resolution=self.resolution))
        return self._finish(upright(image, encoded) if self.upright else image, seed)

    def _resample(self, image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        return resample(image, box, resolution=self.resolution, kernel=self.kernel)

    def _finish(self, image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        image = self.finish(image, seed, self.resolution) if self.finish else image
        return tf.ensure_shape(image, (self.resolution, self.resolution, 3))


def central_square(height_width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The largest centered square, which equals resizing the shorter side to 224 and cropping the center 224 x 224."""
    del seed
    height_width = tf.cast(height_width, tf.float32)
    side = tf.reduce_min(height_width)
    return tf.concat([(height_width - side) / 2, [side, side]], axis=0)


def random_crop(height_width: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A random 224 x 224 crop, after resizing the shorter side to a uniformly random length of 256 to 384 pixels.

    Reference:
      Paper, section 3.1.
    """
    shorter, top, left = tf.unstack(tf.random.stateless_uniform((3,), seed))
    least, greatest = _SHORTER_SIDE
    height_width = tf.cast(height_width, tf.float32)
    scale = (least + tf.floor(shorter * (greatest - least + 1))) / tf.reduce_min(height_width)
    resized = tf.round(height_width * scale)
    corner = tf.floor(tf.stack([top, left]) * (resized - _CROP + 1))
    return tf.concat([corner, [_CROP, _CROP]], axis=0) * tf.tile(height_width / resized, [2])


def flip(image: tf.Tensor, seed: tf.Tensor, resolution: int) -> tf.Tensor:
    """Mirrors an image left to right, with probability 1/2."""
    del resolution
    return tf.image.stateless_random_flip_left_right(image, seed)


def pad_crop_flip(image: tf.Tensor, seed: tf.Tensor, resolution: int) -> tf.Tensor:
    """Pads by reflection with 1/8 of the side (4 of 32 pixels), crops at random, and flips with probability 1/2."""
    pad = max(1, round(_PAD * resolution / 32))
    padded = tf.pad(image, [[pad, pad], [pad, pad], [0, 0]], mode="REFLECT")
    crop_seed, flip_seed = tf.unstack(tf.random.split(seed))
    crop = tf.image.stateless_random_crop(padded, (resolution, resolution, 3), crop_seed)
    return tf.image.stateless_random_flip_left_right(crop, flip_seed)


def place(image: tf.Tensor, seed: tf.Tensor, resolution: int) -> tf.Tensor:
    """Places a small image on a black canvas, at a uniformly random one of the (resolution - side + 1)**2 positions.

    Args:
      image: (side, side, 3) uint8, with a static shape.
      seed: (2,) integers.
      resolution: side of the canvas, in pixels.

    Returns:
      (resolution, resolution, 3) uint8.

    Raises:
      InputError: the images have no static shape, are not square, or are larger than the canvas.
    """
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


# config.data.augmentation: (box, finish) for training.  Evaluation uses the central square.
_RECIPES: dict[str, tuple[_Box | None, _Finish | None]] = {
    "none": (central_square, None),
    "flip": (central_square, flip),
    "crop": (random_crop, None),
    "pad_crop_flip": (central_square, pad_crop_flip),
    "place": (None, place),
}
# What "auto" stands for; sources that are not here use "crop".
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
    """The augmentations for training and for evaluation.

    `config.augmentation="auto"` chooses what the paper does with each source: no augmentation of CIFAR and STL-10 in
    pretraining and probing, random crops of other data sets and of folders.

    Args:
      config: the data section of the config.
      resolution: side of the images that the model sees, in pixels.

    Returns:
      The augmentation for training, and the one for evaluation.

    Reference:
      Paper, section 3.1.
    """
    name = _PAPER.get(config.name, "crop") if config.augmentation == "auto" else config.augmentation
    box, finish = _RECIPES[name]
    plain = Augmentation(
        resolution=resolution,
        kernel=config.filter,
        max_pixels=config.max_pixels,
        upright=config.name.startswith("folder:"),
    )
    evaluation = dataclasses.replace(plain, box=central_square) if box else dataclasses.replace(plain, finish=finish)
    return dataclasses.replace(plain, box=box, finish=finish), evaluation
