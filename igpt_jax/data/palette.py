"""The palette: converts images to color tokens in raster order, and back."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib

import numpy as np

from igpt_jax.checks import check_grid, check_squares
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.storage import as_path, in_bucket

_CELL = 8  # levels a side of the cells of pixels that share candidate colors; 8 builds fastest for 512 colors
_CHUNK = 2**17  # pixels that are encoded at once, few enough for the CPU's cache


@dataclasses.dataclass(frozen=True, eq=False)
class Palette:
    """A table of v colors that represent all 16.7 million; palettes with equal colors compare equal.

    Attributes:
      colors: (v, 3) float32 RGB in [-1, 1], 1 <= v <= 65536; row i is the color of token i.

    Raises:
      InputError: the colors have another shape, or a value that is not finite or outside [-1, 1].

    Reference:
      Paper, section 3.2; the released kmeans_centers.npy holds 512 colors on this scale.
    """

    scale = 1  # pixels along the side of a token

    colors: np.ndarray
    _directory: pathlib.Path | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        colors = np.array(self.colors, np.float32)
        if colors.ndim != 2 or colors.shape[1] != 3 or not 1 <= len(colors) <= 65536:
            raise InputError(f"palette colors have shape {colors.shape}; expected (v, 3) with v in 1..65536")
        if not np.isfinite(colors).all():
            raise InputError("palette colors hold NaN or infinity; expected finite values in [-1, 1]; fit them again")
        if np.abs(colors).max() > 1:
            raise InputError(
                f"palette colors span [{colors.min():g}, {colors.max():g}]; expected [-1, 1]; "
                "for colors in 0..255 pass colors / 127.5 - 1"
            )
        colors.setflags(write=False)
        object.__setattr__(self, "colors", colors)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Palette":
        """Reads a palette from an .npy file that `save` wrote, or from the released one.

        Raises:
          InputError: there is no such file, or it holds no palette.
        """
        try:
            with as_path(path).open("rb") as file:
                palette = cls(np.load(file, allow_pickle=False))
        except FileNotFoundError:
            raise InputError(f"there is no palette at {path}; give an .npy file of (v, 3) colors in [-1, 1]") from None
        except Exception as error:  # numpy reads the header with Python's parser, which raises many types
            raise InputError(f"{path} is not a palette: {error}") from error
        palette._keep_table_beside(as_path(path))
        return palette

    def save(self, path: str | os.PathLike) -> None:
        """Writes the colors to an .npy file, atomically: readers see the old file or the whole new one."""
        _write_array(as_path(path), self.colors)
        self._keep_table_beside(as_path(path))

    def _keep_table_beside(self, path: pathlib.Path) -> None:
        """Has the table of all colors kept next to a file, unless that is in a bucket."""
        if not in_bucket(path):
            object.__setattr__(self, "_directory", path.parent)

    @functools.cached_property
    def hash(self) -> str:
        """Identifies the colors: the first 16 hex digits of the SHA-256 of their float32 bytes."""
        return hashlib.sha256(self.colors.astype("<f4").tobytes()).hexdigest()[:16]

    def __reduce__(self) -> tuple:
        return Palette, (self.colors,)  # without the table, which is large

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Palette) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __len__(self) -> int:
        return len(self.colors)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Replaces every pixel by the token of its nearest color, exactly; the lowest token wins a tie.

        Distances are squared, on the scale of the colors (x / 127.5 - 1), in float64.  The first call builds `table`.

        Args:
          images: (b, r, r, 3) uint8 RGB in 0..255.

        Returns:
          (b, r*r) int32 in [0, v), in raster order.

        Raises:
          InputError: the images have another dtype or shape.
        """
        images = check_squares(images)
        levels, tokens = images.reshape(-1, 3), np.empty(images.size // 3, np.int32)
        for start in range(0, len(tokens), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            # Reads each pixel and the byte after it as one little-endian number, and masks out that fourth byte.
            padded = np.append(levels[chunk], np.uint8(0))
            codes = np.ndarray(len(padded) // 3, "<u4", padded, strides=(3,)).astype(np.intp)
            codes &= 0xFFFFFF
            tokens[chunk] = self.table.take(codes, mode="clip")
        return tokens.reshape(len(images), -1)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Replaces every token by its color.

        Args:
          tokens: (b, r*r) integers in [0, v), in raster order.

        Returns:
          (b, r, r, 3) uint8 RGB in 0..255, which is rint(127.5 * (color + 1)).

        Raises:
          InputError: the tokens have another shape or dtype, or one is outside [0, v).
        """
        levels = np.rint(127.5 * (self.colors + 1)).astype(np.uint8)
        return levels[check_grid(tokens, len(self), "palette")]

    @functools.cached_property
    def table(self) -> np.ndarray:
        """The nearest color of every uint8 pixel: (2**24,) uint16, indexed by red | green << 8 | blue << 16.

        A palette that was loaded or saved caches the table next to its file as HASH.nearest.npy (32 MiB), which may be
        deleted at any time.
        """
        cache = self._directory and self._directory / f"{self.hash}.nearest.npy"
        if cache and (table := _read_table(cache)) is not None:
            return table
        table = self._build_table()
        table.setflags(write=False)
        if cache:
            with contextlib.suppress(OSError):  # the directory may be full or read-only
                _write_array(cache, table)
        return table

    def _build_table(self) -> np.ndarray:
        """Searches each cell of 8x8x8 pixels only among the colors that can be nearest there, about 6 of 512.

        The result is exact.  A color cannot be nearest anywhere in a cell if its least distance to the cell exceeds
        another color's greatest.  Floating-point addition is monotone, so this holds for rounded distances too.
        """
        scale = np.arange(256)[:, None] / 127.5 - 1
        distances = (scale - self.colors.T.astype(np.float64)[:, None, :]) ** 2  # (channel, level, color)
        cells = 256 // _CELL
        distances = distances.reshape(3, cells, _CELL, len(self))
        least, greatest = distances.min(2), distances.max(2)
        red, green, blue = distances
        table = np.empty((cells, _CELL, cells, _CELL, cells, _CELL), np.uint16)
        for i, j in np.ndindex(cells, cells):
            farthest = greatest[0, i] + greatest[1, j] + greatest[2]
            candidates = least[0, i] + least[1, j] + least[2] <= farthest.min(1, keepdims=True)
            for k in range(cells):
                near = np.flatnonzero(candidates[k])
                red_green = red[i][:, None, near] + green[j][:, near]
                distance = red_green[:, :, None, :] + blue[k][:, near]
                table[k, :, j, :, i, :] = near[distance.argmin(-1)].T
        return table.reshape(-1)


def _read_table(path: pathlib.Path) -> np.ndarray | None:
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # as in `Palette.load`; a damaged table is rebuilt
        return None
    return table if table.shape == (2**24,) and table.dtype == np.uint16 else None


def _write_array(path: pathlib.Path, array: np.ndarray) -> None:
    with atomic_write(path, shared=True) as partial, partial.open("wb") as file:
        np.save(file, array)
