"""Fits a palette: Lloyd's k-means on the distinct colors of a sample of pixels."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.progress import progress

_SAMPLE = 2**17  # distinct colors, at most, that k-means++ chooses its centers from and that are fitted first
_GREEDY = 4096  # centers, at most, for which k-means++ is greedy: each center is the best of several candidates
_LEAST_GAIN = 1e-4  # the fit stops when an iteration lowers the inertia by a smaller fraction
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709


def psnr(mean_squared_error: float) -> float:
    """Returns the peak signal-to-noise ratio of levels 0-255, in dB; infinite for no error."""
    return float(10 * np.log10(255**2 / mean_squared_error)) if mean_squared_error > 0 else math.inf


@dataclasses.dataclass(frozen=True)
class Report:
    """How well a palette represents the pixels that it was fitted to.

    Attributes:
      mean_squared_error: per channel, on the scale 0..255, before decoding rounds the colors to uint8.
      psnr: the same in dB, 10 log10(255**2 / mean_squared_error).
      dead: number of colors that no pixel of the sample uses.
      inertia: sum of squared distances over all pixels, on the scale 0..255, at each iteration over all of them.
      pixels: number of pixels that were fitted.
    """

    mean_squared_error: float
    psnr: float
    dead: int
    inertia: tuple[float, ...]
    pixels: int

    def describe(self, palette: Palette) -> str:
        """Summarizes the fit in one line."""
        return (
            f"{len(palette)} colors for {self.pixels:,} pixels, mean squared error {self.mean_squared_error:.2f}, "
            f"PSNR {self.psnr:.1f} dB, {self.dead} dead"
        )


def fit(
    pixels: np.ndarray, size: int, *, counts: np.ndarray | None = None, seed: int = 0, iterations: int = 100
) -> tuple[Palette, Report]:
    """Fits a palette of `size` colors to pixels, ordered from dark to light and deterministic in the seed.

    Equal pixels are merged and weighted by their count, which changes no result and makes photographs several times
    cheaper.  k-means++ chooses the first centers, greedily up to 4,096 colors.  Lloyd iterations then run on a random
    sample of at most 131,072 distinct colors, and after that on all of them.  Each of the two runs ends when an
    iteration lowers the inertia by less than 0.01 %, or after `iterations`.  A color that loses all its pixels moves to
    the pixel with the largest error.

    Args:
      pixels: (n, 3) uint8 RGB in 0..255.
      size: number of colors of the palette.
      counts: (n,) integers, how often each pixel occurs; None counts each once.
      seed: of the sample and of k-means++.
      iterations: most Lloyd iterations of each run.

    Returns:
      The palette, and how well it represents the pixels.

    Raises:
      InputError: the pixels have another shape or dtype, or fewer distinct colors than `size`.

    Reference:
      Arthur and Vassilvitskii 2007, k-means++.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3:
        raise InputError(f"pixels are {pixels.dtype} of shape {pixels.shape}; expected uint8 (n, 3)")
    codes, inverse = np.unique(pixels.astype(np.int32) @ (1 << 16, 1 << 8, 1), return_inverse=True)
    counts = np.bincount(inverse, counts, len(codes))
    if not 1 <= size <= len(codes):
        raise InputError(
            f"cannot fit {size} colors to pixels of {len(codes)} distinct colors; "
            f"choose 1 to {len(codes)} colors, or sample more pixels"
        )
    points = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.float32)
    sample, sample_counts = _sample(points, counts, seed)
    centers = _start(sample, sample_counts, size, seed)
    if len(sample) < len(points):
        centers, _ = _lloyd(sample, sample_counts, centers, iterations)
    centers, inertia = _lloyd(points, counts, centers, iterations)
    palette = Palette(centers[np.argsort(centers @ _LUMINANCE, kind="stable")] / 127.5 - 1)
    nearest, distances = _nearest(points, 127.5 * (palette.colors.astype(np.float64) + 1))
    mean_squared_error = float(counts @ distances) / counts.sum() / 3
    dead = size - len(np.unique(nearest))
    return palette, Report(mean_squared_error, psnr(mean_squared_error), dead, tuple(inertia), int(counts.sum()))


def _sample(points: np.ndarray, counts: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if len(points) <= _SAMPLE:
        return points, counts
    chosen = np.random.default_rng(seed).choice(len(points), _SAMPLE, replace=False)
    return points[chosen], counts[chosen]


def _lloyd(
    points: np.ndarray, counts: np.ndarray, centers: np.ndarray, iterations: int
) -> tuple[np.ndarray, list[float]]:
    """Returns the centers and the inertia at each iteration."""
    inertia: list[float] = []
    with progress("k-means", iterations, "iteration") as advance:
        while len(inertia) < iterations and not _settled(inertia):
            nearest, distances = _nearest(points, centers)
            inertia.append(float(counts @ distances))
            centers = _means(points, counts, nearest, distances, len(centers))
            advance(1)
    return centers, inertia


def _settled(inertia: Sequence[float]) -> bool:
    return len(inertia) > 1 and inertia[-2] - inertia[-1] <= _LEAST_GAIN * inertia[-2]


def _start(points: np.ndarray, counts: np.ndarray, size: int, seed: int) -> np.ndarray:
    first = points[np.random.default_rng(seed).choice(len(points), p=counts / counts.sum())]
    return np.asarray(_plus_plus(points, counts.astype(np.float32), first, jax.random.key(seed), size))


@functools.partial(jax.jit, static_argnames="size")
def _plus_plus(points: jax.Array, weights: jax.Array, first: jax.Array, key: jax.Array, size: int) -> jax.Array:
    """Each new center is the best of a few candidates, sampled in proportion to their weighted squared distance."""
    trials = 2 + int(np.log(size)) if size <= _GREEDY else 1

    def add(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        centers, distances = carry
        cumulative = jnp.cumsum(weights * distances)
        thresholds = cumulative[-1] * jax.random.uniform(jax.random.fold_in(key, i), (trials,))
        candidates = points[jnp.searchsorted(cumulative, thresholds, side="right").clip(max=len(points) - 1)]
        shortened = jax.vmap(lambda candidate: jnp.minimum(distances, _squared_distance(points, candidate)))(candidates)
        best = jnp.argmin(shortened @ weights)
        return centers.at[i].set(candidates[best]), shortened[best]

    centers = jnp.zeros((size, 3)).at[0].set(first)
    return jax.lax.fori_loop(1, size, add, (centers, _squared_distance(points, first)))[0]


def _squared_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    red, green, blue = (a[..., c] - b[..., c] for c in range(3))
    return red * red + green * green + blue * blue


def _nearest(points: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest center of each point, and its squared distance."""
    distances, nearest = cKDTree(centers).query(points, workers=-1)
    return nearest, distances**2


def _means(points: np.ndarray, counts: np.ndarray, nearest: np.ndarray, distances: np.ndarray, size: int) -> np.ndarray:
    mass = np.bincount(nearest, counts, size)
    sums = [np.bincount(nearest, counts * channel, size) for channel in points.T]
    means = np.stack(sums, axis=1) / np.maximum(mass, 1)[:, None]
    empty = np.flatnonzero(mass == 0)  # each moves to one of the points with the largest weighted error
    means[empty] = points[np.argsort(-counts * distances)[: len(empty)]]
    return means
