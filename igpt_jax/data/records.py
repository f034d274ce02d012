"""One split of a data set in its fixed order: in memory, cut from pictures, encoded on disk, or as tokens."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from igpt_jax.data.augment import Augmentation, central_square
from igpt_jax.data.decode import diagnose
from igpt_jax.data.palette import Palette
from igpt_jax.data.tensorflow import tf

# From an image's place in the source () int64 and a seed (2,) int64 to its pixels, (resolution, resolution, 3) uint8.
Draw = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class MemorySource:
    """Images of one size, small enough together to stay in memory.

    Attributes:
      images: (n, h, w, 3) uint8 RGB in 0..255.
      labels: (n,) int32 in [0, classes).
      classes: how many labels there are; 0 without labels.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int
    is_random = False  # whether another seed gives another image, whatever the augmentation

    def __len__(self):
        return len(self.images)

    def take(self, rows: np.ndarray) -> "MemorySource":
        """The images of these rows, in their order."""
        return MemorySource(self.images[rows], self.labels[rows], self.classes)

    def drawer(self, augmentation: Augmentation) -> Draw:
        """Augments one image after another."""
        images = tf.constant(self.images)
        return lambda index, seed: augmentation.of_pixels(images[index], seed)


@dataclasses.dataclass(frozen=True, eq=False)
class CropSource:
    """Random squares of a few pictures, as many as wanted: another seed cuts another square.

    The side of a square is log-uniform in [side / 4, side], and every place in the picture is equally likely.

    Attributes:
      pictures: arrays (h, w, 3) uint8 RGB, of any sizes.
      sides: the longest side of a square of each picture, in pixels.
      rows: (n,) int64, the picture that each image is cut from.
      labels: (n,) int32 in [0, classes).
      classes: how many labels there are.
    """

    pictures: Sequence[np.ndarray]
    sides: Sequence[int]
    rows: np.ndarray
    labels: np.ndarray
    classes: int
    is_random = True

    def __len__(self):
        return len(self.rows)

    def drawer(self, augmentation: Augmentation) -> Draw:
        """Cuts a square and augments it."""
        pixels = tf.constant(np.concatenate([picture.reshape(-1, 3) for picture in self.pictures]))
        shapes = np.array([picture.shape[:2] for picture in self.pictures])
        starts = tf.constant(np.cumsum(shapes.prod(axis=1)) - shapes.prod(axis=1))
        shapes, sides, pictures = tf.constant(shapes), tf.constant(self.sides, tf.float32), tf.constant(self.rows)

        def draw(index, seed):
            picture = pictures[index]
            crop_seed, augmentation_seed = tf.unstack(tf.random.split(seed))
            octaves, *place = tf.unstack(tf.random.stateless_uniform((3,), crop_seed))
            side = tf.cast(tf.round(sides[picture] * 4**-octaves), tf.int64)
            free = tf.cast(shapes[picture] - side + 1, tf.float32)
            top, left = tf.unstack(tf.cast(tf.floor(place * free), tf.int64))
            rows, columns = top + tf.range(side), left + tf.range(side)
            square = tf.gather(pixels, starts[picture] + rows[:, None] * shapes[picture, 1] + columns)
            return augmentation.of_pixels(square, augmentation_seed)

        return draw


@dataclasses.dataclass(frozen=True, eq=False)
class BlendedSource:
    """Images |foreground - background| of each channel, as in MNIST-M (Ganin et al. 2016, section 4.2).

    The foreground is augmented; another seed takes another background.  The labels are the foreground's.
    """

    foreground: MemorySource
    background: CropSource
    is_random = True

    def __len__(self):
        return len(self.foreground)

    @property
    def classes(self) -> int:
        """How many labels there are."""
        return self.foreground.classes

    @property
    def labels(self) -> np.ndarray:
        """(n,) int32."""
        return self.foreground.labels

    def drawer(self, augmentation: Augmentation) -> Draw:
        """Augments the foreground and blends it with a whole background square."""
        foreground = self.foreground.drawer(augmentation)
        whole = dataclasses.replace(augmentation, box=central_square, finish=None)
        background, backgrounds = self.background.drawer(whole), len(self.background)

        def draw(index, seed):
            foreground_seed, choice_seed, background_seed = tf.unstack(tf.random.split(seed, 3))
            chosen = tf.random.stateless_uniform((), choice_seed, maxval=backgrounds, dtype=tf.int64)
            one, other = foreground(index, foreground_seed), background(chosen, background_seed)
            return tf.maximum(one, other) - tf.minimum(one, other)

        return draw


@dataclasses.dataclass(frozen=True, eq=False)
class FileSource:
    """Encoded images on disk, read one by one where they are needed.

    Attributes:
      rows: (n,) int64, the record of each image.
      classes: how many labels there are; 0 without labels.
      read: from rows (b,) int64 to records (b,) string; a record that cannot be read is empty.
      parse: from a row () and its record () to the encoded image () string and its label () int32.
      name: from a row to what a person calls it: a path, or a file and a number.
    """

    rows: np.ndarray
    classes: int
    read: Callable[[tf.Tensor], tf.Tensor]
    parse: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    name: Callable[[int], str]
    is_random = False

    def __len__(self):
        return len(self.rows)

    def take(self, rows: np.ndarray) -> "FileSource":
        """The images of these rows, in their order."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def complaint(self, index: int, max_pixels: int = 2**63 - 1) -> str:
        """Names an image that cannot be decoded, and says why."""
        row = self.rows[index]
        try:
            encoded, _ = self.parse(tf.constant(row), self.read(tf.constant([row]))[0])
            encoded = encoded.numpy()
        except tf.errors.OpError:
            encoded = b""
        return f"{self.name(row)} (image {index}): {diagnose(encoded, max_pixels)}"


@dataclasses.dataclass(frozen=True, eq=False)
class TokenSource:
    """Images that already are tokens, in memory-mapped files.

    Attributes:
      tokens: arrays (m, r*r) of integers, one after the other.
      labels: (n,) int32 in [0, classes), n the sum of all m.
      classes: how many labels there are; 0 without labels.
      palette: the colors that made them; None where the files do not say.
    """

    tokens: Sequence[np.ndarray]
    labels: np.ndarray
    classes: int
    palette: Palette | None = None
    is_random = False

    def __len__(self):
        return len(self.labels)

    @property
    def resolution(self) -> int:
        """Pixels a side."""
        return round(self.tokens[0].shape[1] ** 0.5)

    def read(self, index: np.ndarray) -> np.ndarray:
        """The tokens of images (b,), as (b, r*r) int32."""
        ends = np.cumsum([len(tokens) for tokens in self.tokens])
        files = np.searchsorted(ends, index, side="right")
        found = np.empty((len(index), self.tokens[0].shape[1]), np.int32)
        for file in np.unique(files):
            chosen = files == file
            found[chosen] = self.tokens[file][index[chosen] - (ends[file] - len(self.tokens[file]))]
        return found


PixelSource = MemorySource | CropSource | BlendedSource
Source = PixelSource | FileSource | TokenSource
