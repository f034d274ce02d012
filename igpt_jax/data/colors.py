"""Counting the colors of a source: all that fitting a palette needs to know of millions of images."""

import numpy as np
import tqdm

from igpt_jax.data.augment import Augmentation
from igpt_jax.data.pipeline import originals
from igpt_jax.data.records import Source

_BATCH = 256  # images
_LEAST = 64  # pixels of an image, where there are more images than needed


def count_colors(
    source: Source, augmentation: Augmentation, *, pixels: int, seed: int = 0, max_skipped: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws pixels from images in random order, equally many from each, and counts how often each color occurs.

    The images pass once and come as the model sees them, at its resolution.  As many of them are read as it takes to
    find `pixels` at 64 or more an image; memory stays at 128 MiB whatever their number.

    Returns the distinct colors (n, 3) uint8 and their counts (n,) int64.
    """
    counts = np.zeros(2**24, np.int64)
    context = augmentation.resolution**2
    each = min(context, max(_LEAST, -(-pixels // len(source))))
    images = min(len(source), -(-pixels // each))
    rng = np.random.default_rng(seed)
    stream = originals(source, augmentation, batch_size=_BATCH, max_skipped=max_skipped, shuffle_seed=seed)
    with tqdm.tqdm(total=images, desc="colors", unit="image", leave=False, disable=None) as bar:
        for start, batch in zip(range(0, images, _BATCH), stream, strict=False):
            image = batch["image"][: images - start].reshape(-1, context, 3)
            found = rng.permuted(image.astype(np.int32) @ (1 << 16, 1 << 8, 1), axis=1)[:, :each]
            codes, times = np.unique(found, return_counts=True)
            counts[codes] += times
            bar.update(len(found))
    codes = np.flatnonzero(counts)
    return np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.uint8), counts[codes]
