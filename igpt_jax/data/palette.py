"""The palette: images to color tokens in raster order, and back."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib

import einops
import numpy as np

from igpt_jax.errors import InputError

_CELL = 8  # levels a side of the cells that share their candidate colors: 8 builds fastest for 512 colors

_CHUNK = 2**17  # pixels that are encoded at once, in the cache


@dataclasses.dataclass(frozen=True, eq=False)
class Palette:
    """v colors that stand for all 16.7 million; palettes of equal colors are equal.

    Attributes:
      colors: (v, 3) float32 RGB in [-1, 1], 1 <= v <= 65536; token i paints with row i.

    Raises:
      InputError: another shape, a value that is not finite, or one outside [-1, 1].

    Source: the released kmeans_centers.npy holds 512 colors in this scale (paper, section 3.2).
    """

    colors: np.ndarray
    _directory: pathlib.Path | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self):
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
        """Reads the .npy file that `save` wrote, or the released one.  Raises InputError if it holds no palette."""
        try:
            palette = cls(np.load(path, allow_pickle=False))
        except FileNotFoundError:
            raise InputError(f"there is no palette at {path}; give an .npy file of (v, 3) colors in [-1, 1]") from None
        except Exception as error:  # numpy reads the header with Python's own parser, which raises many kinds
            raise InputError(f"{path} is not a palette: {error}") from error
        object.__setattr__(palette, "_directory", pathlib.Path(path).parent)
        return palette

    def save(self, path: str | os.PathLike) -> None:
        """Writes the colors as .npy; a reader finds the old file or the whole new one, never a part."""
        path = pathlib.Path(path)
        _write_array(path, self.colors)
        object.__setattr__(self, "_directory", path.parent)

    @functools.cached_property
    def hash(self) -> str:
        """16 hex digits that name these colors: the start of the SHA-256 of their float32 bytes."""
        return hashlib.sha256(self.colors.astype("<f4").tobytes()).hexdigest()[:16]

    def __eq__(self, other):
        return isinstance(other, Palette) and self.hash == other.hash

    def __hash__(self):
        return hash(self.hash)

    def __len__(self):
        return len(self.colors)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Names every pixel's nearest color exactly, the lowest token on a tie.

        images: (b, r, r, 3) uint8 RGB in 0..255.  Returns (b, r*r) int32 in [0, v), in raster order.  Nearest is
        by squared distance in the scale of the colors, x / 127.5 - 1, in float64.  The first call builds `table`.

        Raises:
          InputError: another dtype or shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8:
            raise InputError(f"images are {images.dtype}; expected uint8 in 0..255; round and convert them first")
        if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
            raise InputError(f"images have shape {images.shape}; expected (b, r, r, 3); crop them to a square first")
        levels, tokens = images.reshape(-1, 3), np.empty(images.size // 3, np.int32)
        for start in range(0, len(tokens), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            # Each pixel and the byte after it are one little-endian number: red, green, blue, and what is masked out.
            padded = np.append(levels[chunk], np.uint8(0))
            codes = np.ndarray(len(padded) // 3, "<u4", padded, strides=(3,)).astype(np.intp)
            codes &= 0xFFFFFF
            tokens[chunk] = self.table.take(codes, mode="clip")
        return tokens.reshape(len(images), -1)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Paints tokens with their colors.

        tokens: (b, r*r) integers in [0, v), in raster order.  Returns (b, r, r, 3) uint8, rint(127.5 * (c + 1)).

        Raises:
          InputError: a length that is not a square, or a token without a color.
        """
        tokens = np.asarray(tokens)
        side = round(tokens.shape[-1] ** 0.5) if tokens.ndim == 2 else 0
        if tokens.ndim != 2 or side**2 != tokens.shape[1] or not np.issubdtype(tokens.dtype, np.integer):
            raise InputError(f"tokens are {tokens.dtype} of shape {tokens.shape}; expected integers (b, r*r)")
        if tokens.size and (tokens.min() < 0 or tokens.max() >= len(self)):
            raise InputError(
                f"tokens span [{tokens.min()}, {tokens.max()}]; expected [0, {len(self) - 1}]: "
                "decode with the palette that encoded them"
            )
        levels = np.rint(127.5 * (self.colors + 1)).astype(np.uint8)
        return einops.rearrange(levels[tokens], "b (row column) c -> b row column c", row=side)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """The nearest color of every uint8 pixel: (2**24,) uint16, indexed by red | green << 8 | blue << 16.

        A palette that was loaded or saved keeps it beside its file as HASH.nearest.npy, 32 MiB that may be deleted.
        """
        cache = self._directory and self._directory / f"{self.hash}.nearest.npy"
        if cache and (table := _read_table(cache)) is not None:
            return table
        table = self._build_table()
        table.setflags(write=False)
        if cache:
            with contextlib.suppress(OSError):  # a directory that is full or not ours
                _write_array(cache, table)
        return table

    def _build_table(self):
        """Exact: floating-point addition is monotone, so within a cell of 8x8x8 pixels a color whose least distance
        exceeds another's greatest can win nowhere; six of 512 remain on average.
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


def _read_table(path):
    try:
        table = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception:  # as in `Palette.load`; a damaged one is made anew
        return None
    return table if table.shape == (2**24,) and table.dtype == np.uint16 else None


def _write_array(path, array):
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.save(file, array)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
