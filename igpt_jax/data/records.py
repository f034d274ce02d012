"""One split of a data set in a fixed order: in memory, cut from pictures, encoded on disk, or stored as tokens."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from igpt_jax.data.augment import Augmentation, central_square
from igpt_jax.data.decode import diagnose
from igpt_jax.data.tensorflow import tf
from igpt_jax.data.tokenizer import Tokenizer

# From the index of an image in its source () int64 and a seed (2,) int64 to its augmented pixels,
# (resolution, resolution, 3) uint8.
Draw = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class MemorySource:
    """Images of one size, few enough to stay in memory.

    Attributes:
      images: (n, h, w, 3) uint8 RGB in 0..255.
      labels: (n,) int32 in [0, classes).
      classes: number of classes; 0 if there are no labels.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    is_random = False  # whether different seeds give different images even without a random augmentation

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> "MemorySource":
        """A source of only these images, in the order of `rows`."""
        return MemorySource(self.images[rows], self.labels[rows], self.classes)

    def drawer(self, augmentation: Augmentation) -> Draw:
        """A function that augments the image of an index."""
        images = tf.constant(self.images)
        return lambda index, seed: augmentation.of_pixels(images[index], seed)


@dataclasses.dataclass(frozen=True, eq=False)
class CropSource:
    """Random squares cut from a few pictures; another seed cuts another square.

    The side of a square is log-uniform in [side / 4, side], and every position in the picture is equally likely.

    Attributes:
      pictures: arrays (h, w, 3) uint8 RGB in 0..255, of any sizes.
      sides: side of the largest square of each picture, in pixels.
      rows: (n,) int64, the index of the picture that each image is cut from.
      labels: (n,) int32 in [0, classes).
      classes: number of classes.
    """

    pictures: Sequence[np.ndarray]
    sides: Sequence[int]
    rows: np.ndarray
    labels: np.ndarray
    classes: int
    is_random = True

    def __len__(self) -> int:
        return len(self.rows)

    def drawer(self, augmentation: Augmentation) -> Draw:
        """A function that cuts the square of an index and augments it."""
        pixels = tf.constant(np.concatenate([picture.reshape(-1, 3) for picture in self.pictures]))
        shapes = np.array([picture.shape[:2] for picture in self.pictures])
        starts = tf.constant(np.cumsum(shapes.prod(axis=1)) - shapes.prod(axis=1))
        shapes, sides, pictures = tf.constant(shapes), tf.constant(self.sides, tf.float32), tf.constant(self.rows)

        def draw(index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            picture = pictures[index]
            crop_seed, augmentation_seed = tf.unstack(tf.random.split(seed))
            octaves, *position = tf.unstack(tf.random.stateless_uniform((3,), crop_seed))
            side = tf.cast(tf.round(sides[picture] * 4**-octaves), tf.int64)
            free = tf.cast(shapes[picture] - side + 1, tf.float32)
            top, left = tf.unstack(tf.cast(tf.floor(position * free), tf.int64))
            rows, columns = top + tf.range(side), left + tf.range(side)
            square = tf.gather(pixels, starts[picture] + rows[:, None] * shapes[picture, 1] + columns)
            return augmentation.of_pixels(square, augmentation_seed)

        return draw


@dataclasses.dataclass(frozen=True, eq=False)
class BlendedSource:
    """Blends digits with photographs: each channel is abs(foreground - background).

    Only the foreground is augmented.  Another seed chooses another background.  The labels are those of the foreground.

    Reference:
      MNIST-M (Ganin et al. 2016, section 4.2).
    """

    foreground: MemorySource
    background: CropSource
    is_random = True

    def __len__(self) -> int:
        return len(self.foreground)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.foreground.classes

    @property
    def labels(self) -> np.ndarray:
        """(n,) int32 in [0, classes)."""
        return self.foreground.labels

    def drawer(self, augmentation: Augmentation) -> Draw:
        """A function that augments the foreground of an index and blends it with a whole background square."""
        foreground = self.foreground.drawer(augmentation)
        whole = dataclasses.replace(augmentation, box=central_square, finish=None)
        background, backgrounds = self.background.drawer(whole), len(self.background)

        def draw(index: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            foreground_seed, choice_seed, background_seed = tf.unstack(tf.random.split(seed, 3))
            chosen = tf.random.stateless_uniform((), choice_seed, maxval=backgrounds, dtype=tf.int64)
            front, back = foreground(index, foreground_seed), background(chosen, background_seed)
            return tf.maximum(front, back) - tf.minimum(front, back)  # uint8 has no negative differences

        return draw


@dataclasses.dataclass(frozen=True, eq=False)
class FileSource:
    """Encoded images on disk, read when they are needed.

    Attributes:
      rows: (n,) int64, the number of each image's record.
      classes: number of classes; 0 if there are no labels.
      read: from rows (b,) int64 to records (b,) string; a record that cannot be read is empty.
      parse: from a row () and its record () to the encoded image () string and its label () int32.
      name: from a row to a name for error messages: a path, or a data set and the number of the record.
    """

    rows: np.ndarray
    classes: int
    read: Callable[[tf.Tensor], tf.Tensor]
    parse: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    name: Callable[[int], str]
    is_random = False

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray) -> "FileSource":
        """A source of only these images, in the order of `rows`."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def complaint(self, index: int, max_pixels: int = 2**63 - 1) -> str:
        """An error message that names an image that cannot be decoded and says why."""
        row = self.rows[index]
        try:
            encoded, _ = self.parse(tf.constant(row), self.read(tf.constant([row]))[0])
            encoded = encoded.numpy()
        except tf.errors.OpError:
            encoded = b""
        return f"{self.name(row)} (image {index}): {diagnose(encoded, max_pixels)}"


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSource:
    """Images that are stored as tokens, in memory-mapped files.

    Attributes:
      tokens: arrays (m, r*r) of integers, in raster order; the images of the first array come first.
      labels: (n,) int32 in [0, classes), where n is the sum of all m.
      classes: number of classes; 0 if there are no labels.
      palette: the palette or codec that encoded the images; None if the files do not say.
      views: how often each image is there, augmented anew; one pass over all images follows the other.
    """

    tokens: Sequence[np.ndarray]
    labels: np.ndarray
    classes: int
    palette: Tokenizer | None = None
    views: int = 1
    is_random = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resolution(self) -> int:
        """Side of the images, in pixels."""
        return round(self.tokens[0].shape[1] ** 0.5)

    def read(self, index: np.ndarray) -> np.ndarray:
        """Reads the tokens of some images.

        Args:
          index: (b,) integers, indices of images in this source.

        Returns:
          (b, r*r) int32, in raster order.
        """
        ends = np.cumsum([len(tokens) for tokens in self.tokens])
        files = np.searchsorted(ends, index, side="right")
        result = np.empty((len(index), self.tokens[0].shape[1]), np.int32)
        for file in np.unique(files):
            chosen = files == file
            result[chosen] = self.tokens[file][index[chosen] - (ends[file] - len(self.tokens[file]))]
        return result


PixelSource = MemorySource | CropSource | BlendedSource
Source = PixelSource | FileSource | TokenSource
