"""Fitting a palette: Lloyd's k-means on the distinct colors of a sample of pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from scipy.spatial import cKDTree

from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError

_SAMPLE = 2**17  # distinct colors, at most, among which k-means++ chooses its starts and that are fitted first
_GREEDY = 4096  # starts, at most, that are each the best of several candidates
_LEAST_GAIN = 1e-4  # of the inertia in an iteration: less ends the fit
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709


@dataclasses.dataclass(frozen=True)
class Report:
    """How well the fitted colors stand for the pixels they were fitted to.

    Attributes:
      mean_squared_error: per channel, in units of 0..255, before decoding rounds the colors to uint8.
      psnr: the same in dB, 10 log10(255**2 / mean_squared_error).
      dead: colors that no pixel of the sample uses.
      inertia: sum of squared distances, in units of 0..255, at each iteration over all pixels.
      pixels: how many were fitted.
    """

    mean_squared_error: float
    psnr: float
    dead: int
    inertia: tuple[float, ...]
    pixels: int

    def describe(self, palette: Palette) -> str:
        """One line for people."""
        return (
            f"{len(palette)} colors for {self.pixels:,} pixels, mean squared error {self.mean_squared_error:.2f}, "
            f"PSNR {self.psnr:.1f} dB, {self.dead} dead"
        )


def fit(
    pixels: np.ndarray, size: int, *, counts: np.ndarray | None = None, seed: int = 0, iterations: int = 100
) -> tuple[Palette, Report]:
    """Fits `size` colors to pixels, the same ones for the same seed, ordered from dark to light.

    pixels: (n, 3) uint8 RGB.  counts: (n,) integers, how often each occurs; None: once.  Equal pixels are merged and
    weighted by their count, which changes no result and makes photographs several times cheaper.  k-means++ (Arthur
    and Vassilvitskii 2007), greedy up to 4,096 colors, and Lloyd iterations first see at most 131,072 distinct
    colors drawn by the seed, then all of them, until an iteration lowers the inertia by less than a ten-thousandth
    or `iterations` are done.  A color left without pixels moves to those that are worst served.

    Raises:
      InputError: pixels of another shape or dtype, or fewer distinct colors than `size`.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3:
        raise InputError(f"pixels are {pixels.dtype} of shape {pixels.shape}; expected uint8 (n, 3)")
    codes, place = np.unique(pixels.astype(np.int32) @ (1 << 16, 1 << 8, 1), return_inverse=True)
    counts = np.bincount(place, counts, len(codes))
    if not 1 <= size <= len(codes):
        raise InputError(
            f"cannot fit {size} colors to pixels of {len(codes)} distinct colors; "
            f"choose 1 to {len(codes)} colors, or sample more pixels"
        )
    points = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.float32)
    sample = _sample(points, counts, seed)
    centers = _start(*sample, size, seed)
    if len(sample[0]) < len(points):
        centers, _ = _lloyd(*sample, centers, iterations)
    centers, inertia = _lloyd(points, counts, centers, iterations)
    palette = Palette(centers[np.argsort(centers @ _LUMINANCE, kind="stable")] / 127.5 - 1)
    nearest, distances = _nearest(points, 127.5 * (palette.colors.astype(np.float64) + 1))
    mean_squared_error = float(counts @ distances) / counts.sum() / 3
    psnr = 10 * np.log10(255**2 / mean_squared_error) if mean_squared_error > 0 else np.inf
    dead = size - len(np.unique(nearest))
    return palette, Report(mean_squared_error, float(psnr), dead, tuple(inertia), int(counts.sum()))


def _sample(points, counts, seed):
    if len(points) <= _SAMPLE:
        return points, counts
    chosen = np.random.default_rng(seed).choice(len(points), _SAMPLE, replace=False)
    return points[chosen], counts[chosen]


def _lloyd(points, counts, centers, iterations):
    """Returns the centers and the inertia at each iteration."""
    inertia = []
    with tqdm.tqdm(total=iterations, desc="k-means", unit="iteration", leave=False, disable=None) as bar:
        while len(inertia) < iterations and not _settled(inertia):
            nearest, distances = _nearest(points, centers)
            inertia.append(float(counts @ distances))
            centers = _means(points, counts, nearest, distances, len(centers))
            bar.update()
    return centers, inertia


def _settled(inertia):
    return len(inertia) > 1 and inertia[-2] - inertia[-1] <= _LEAST_GAIN * inertia[-2]


def _start(points, counts, size, seed):
    first = points[np.random.default_rng(seed).choice(len(points), p=counts / counts.sum())]
    return np.asarray(_plus_plus(points, counts.astype(np.float32), first, jax.random.key(seed), size))


def _plus_plus(points, weights, first, key, size):
    """Each new center is the best of a few candidates drawn in proportion to weighted squared distance."""
    trials = 2 + int(np.log(size)) if size <= _GREEDY else 1

    def add(i, carry):
        centers, distances = carry
        cumulative = jnp.cumsum(weights * distances)
        draws = cumulative[-1] * jax.random.uniform(jax.random.fold_in(key, i), (trials,))
        candidates = points[jnp.searchsorted(cumulative, draws, side="right").clip(max=len(points) - 1)]
        shortened = jax.vmap(lambda candidate: jnp.minimum(distances, _squared_distance(points, candidate)))(candidates)
        best = jnp.argmin(shortened @ weights)
        return centers.at[i].set(candidates[best]), shortened[best]

    centers = jnp.zeros((size, 3)).at[0].set(first)
    return jax.lax.fori_loop(1, size, add, (centers, _squared_distance(points, first)))[0]


_plus_plus = jax.jit(_plus_plus, static_argnames="size")


def _squared_distance(a, b):
    red, green, blue = (a[..., c] - b[..., c] for c in range(3))
    return red * red + green * green + blue * blue


def _nearest(points, centers):
    distances, nearest = cKDTree(centers).query(points, workers=-1)
    return nearest, distances**2


def _means(points, counts, nearest, distances, size):
    mass = np.bincount(nearest, counts, size)
    sums = [np.bincount(nearest, counts * channel, size) for channel in points.T]
    means = np.stack(sums, axis=1) / np.maximum(mass, 1)[:, None]
    empty = np.flatnonzero(mass == 0)
    means[empty] = points[np.argsort(-counts * distances)[: len(empty)]]
    return means
