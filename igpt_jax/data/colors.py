"""Counts the colors of a source, which is all that fitting a palette to millions of images needs."""

import numpy as np

from igpt_jax.data.augment import Augmentation
from igpt_jax.data.pipeline import originals
from igpt_jax.data.records import Source
from igpt_jax.progress import progress

_BATCH = 256  # images
_LEAST = 64  # pixels sampled from an image when the source has more images than needed


def count_colors(
    source: Source, augmentation: Augmentation, *, pixels: int, seed: int = 0, max_skipped: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Samples equally many pixels from each of a random selection of images, and counts how often each color occurs.

    Images are read at most once, at the model's resolution, until `pixels` are sampled at 64 or more an image.  The
    counts take 128 MiB, whatever the number of images.

    Args:
      source: the images.
      augmentation: what happens to each image before its pixels are sampled.
      pixels: how many pixels to sample, all images together.
      seed: of the order of the images and of the sample.
      max_skipped: how many images that cannot be decoded are skipped before it fails.

    Returns:
      The distinct colors (n, 3) uint8 RGB and their counts (n,) int64.

    Raises:
      InputError: more than `max_skipped` images cannot be decoded, or the source holds tokens.
    """
    counts = np.zeros(2**24, np.int64)
    context = augmentation.resolution**2
    each = min(context, max(_LEAST, -(-pixels // len(source))))
    images = min(len(source), -(-pixels // each))
    rng = np.random.default_rng(seed)
    stream = originals(source, augmentation, batch_size=_BATCH, max_skipped=max_skipped, shuffle_seed=seed)
    with progress("colors", images, "image") as advance:
        for start, batch in zip(range(0, images, _BATCH), stream, strict=False):
            image = batch["image"][: images - start].reshape(-1, context, 3)
            sampled = rng.permuted(image.astype(np.int32) @ (1 << 16, 1 << 8, 1), axis=1)[:, :each]
            codes, times = np.unique(sampled, return_counts=True)
            counts[codes] += times
            advance(len(sampled))
    codes = np.flatnonzero(counts)
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8), counts[codes]
