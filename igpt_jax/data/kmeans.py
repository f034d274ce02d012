"""Fitting a palette: Lloyd's k-means on the distinct colours of a sample of pixels, in JAX."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError

_START_COLOURS = 2**17  # distinct colours, at most, among which k-means++ chooses its starts
_CHUNK = 1024  # colours whose distances to every centre are held at once
_LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709


@dataclasses.dataclass(frozen=True)
class Report:
    """How well the fitted colours stand for the pixels they were fitted to.

    Attributes:
      mean_squared_error: per channel, in units of 0..255, before decoding rounds the colours to uint8.
      psnr: the same in dB, 10 log10(255**2 / mean_squared_error).
      dead: colours that no pixel of the sample uses.
      inertia: sum of squared distances, in units of 0..255, at each iteration; it falls strictly.
    """

    mean_squared_error: float
    psnr: float
    dead: int
    inertia: tuple[float, ...]


def fit(pixels: np.ndarray, size: int, *, seed: int = 0, iterations: int = 100) -> tuple[Palette, Report]:
    """Fits `size` colours to pixels, the same ones for the same seed, ordered from dark to light.

    pixels: (n, 3) uint8 RGB.  Equal pixels are merged and weighted by their count, which changes no result and makes
    photographs several times cheaper.  Greedy k-means++ (Arthur and Vassilvitskii 2007) starts from at most 131,072
    distinct colours drawn by the seed; Lloyd iterations then use all of them, until the inertia no longer falls or
    `iterations` are done.  A colour left without pixels moves to the pixels that are worst served.

    Raises:
      InputError: pixels of another shape or dtype, or fewer distinct colours than `size`.
    """
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3:
        raise InputError(f"pixels are {pixels.dtype} of shape {pixels.shape}; expected uint8 (n, 3)")
    codes, counts = np.unique(pixels.astype(np.int32) @ (1 << 16, 1 << 8, 1), return_counts=True)
    if not 1 <= size <= len(codes):
        raise InputError(
            f"cannot fit {size} colours to pixels of {len(codes)} distinct colours; "
            f"choose 1 to {len(codes)} colours (model.vocabulary), or sample more pixels (palette.pixels)"
        )
    points = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.float32)
    centres = _start(points, counts, size, seed)
    inertia = []
    for _ in range(iterations):
        nearest, distances = _nearest(points, centres)
        total = float(counts @ distances)
        if inertia and total >= inertia[-1]:
            break
        inertia.append(total)
        centres = _means(points, counts, nearest, distances, size)
    palette = Palette(centres[np.argsort(centres @ _LUMINANCE, kind="stable")] / 127.5 - 1)
    nearest, distances = _nearest(points, 127.5 * (palette.colors.astype(np.float64) + 1))
    mean_squared_error = float(counts @ distances) / pixels.size
    psnr = 10 * np.log10(255**2 / mean_squared_error) if mean_squared_error > 0 else np.inf
    dead = size - len(np.unique(nearest))
    return palette, Report(mean_squared_error, float(psnr), dead, tuple(inertia))


def _start(points: np.ndarray, counts: np.ndarray, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if len(points) > _START_COLOURS:
        chosen = rng.choice(len(points), _START_COLOURS, replace=False)
        points, counts = points[chosen], counts[chosen]
    first = points[rng.choice(len(points), p=counts / counts.sum())]
    return np.asarray(_plus_plus(points, counts.astype(np.float32), first, jax.random.key(seed), size))


def _plus_plus(points, weights, first, key, size):
    """Each new centre is the best of a few candidates drawn in proportion to weighted squared distance."""
    trials = 2 + int(np.log(size))

    def add(i, carry):
        centres, distances = carry
        cumulative = jnp.cumsum(weights * distances)
        draws = cumulative[-1] * jax.random.uniform(jax.random.fold_in(key, i), (trials,))
        candidates = points[jnp.searchsorted(cumulative, draws, side="right").clip(max=len(points) - 1)]
        shortened = jax.vmap(lambda candidate: jnp.minimum(distances, _squared_distance(points, candidate)))(candidates)
        best = jnp.argmin(shortened @ weights)
        return centres.at[i].set(candidates[best]), shortened[best]

    centres = jnp.zeros((size, 3)).at[0].set(first)
    return jax.lax.fori_loop(1, size, add, (centres, _squared_distance(points, first)))[0]


_plus_plus = jax.jit(_plus_plus, static_argnames="size")


def _squared_distance(a, b):
    red, green, blue = (a[..., c] - b[..., c] for c in range(3))
    return red * red + green * green + blue * blue


@jax.jit
def _assign(points, centres):
    def nearest(point):
        # Two passes are far faster than argmin on a CPU; the barrier makes both read the same numbers.
        distances = jax.lax.optimization_barrier(_squared_distance(point, centres))
        return jnp.where(distances == distances.min(), jnp.arange(len(centres)), len(centres)).min()

    return jax.lax.map(nearest, points, batch_size=_CHUNK)


def _nearest(points, centres):
    nearest = np.asarray(_assign(points, centres.astype(np.float32)))
    return nearest, ((points - centres[nearest]) ** 2).sum(1)


def _means(points, counts, nearest, distances, size):
    mass = np.bincount(nearest, counts, size)
    sums = [np.bincount(nearest, counts * channel, size) for channel in points.T]
    means = np.stack(sums, axis=1) / np.maximum(mass, 1)[:, None]
    empty = np.flatnonzero(mass == 0)
    means[empty] = points[np.argsort(-counts * distances)[: len(empty)]]
    return means
