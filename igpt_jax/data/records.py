"""One split of a data set in its fixed order, wherever it lies: in memory, encoded on disk, or as tokens."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from igpt_jax.data.decode import diagnose
from igpt_jax.data.palette import Palette
from igpt_jax.data.tensorflow import tf


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

    def __len__(self):
        return len(self.images)

    def take(self, rows: np.ndarray) -> "MemorySource":
        """The images of these rows, in their order."""
        return MemorySource(self.images[rows], self.labels[rows], self.classes)


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
      palette: the colours that made them; None where the files do not say.
    """

    tokens: Sequence[np.ndarray]
    labels: np.ndarray
    classes: int
    palette: Palette | None = None

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


Source = MemorySource | FileSource | TokenSource
