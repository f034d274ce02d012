"""The tf.data pipeline: a source's images as batches of color tokens, each a pure function of seed and step."""

from collections.abc import Iterator

import numpy as np

from igpt_jax.cores import CORES
from igpt_jax.data.augment import Augmentation
from igpt_jax.data.loading import load_images, numpy_batches
from igpt_jax.data.palette import Palette
from igpt_jax.data.records import Source, TokenSource
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError


def batches(
    source: Source,
    palette: Palette,
    augmentation: Augmentation,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    max_skipped: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """An endless stream of training batches, where that of step s depends on seed and s alone.

    The stream can therefore start at any step, and the batches of all processes, put together in their order, are
    the one-process batch.  Every epoch visits every image once, in an order and with augmentations of its own.  An
    image that cannot be decoded is replaced by the next of its epoch's order that can, up to `max_skipped` of them.

    batch_size: images a step, over all processes.  start_step: the step of the first batch.

    Yields, with b = batch_size / process_count: "tokens" (b, r*r) int32 in [0, v), "label" (b,) int32, and "index"
    (b,) int32, the image's place in the source.

    Raises:
      InputError: a batch that the processes cannot share equally; images that the augmentation refuses; while
        iterating, a broken image too many, by its name, or tokens of another palette.
    """
    if batch_size % process_count:
        nearest = max(1, round(batch_size / process_count)) * process_count
        raise InputError(
            f"data.batch_size={batch_size} cannot be shared equally by {process_count} processes; set {nearest}"
        )
    local_size, images = batch_size // process_count, len(source)
    local_start = process_index * local_size

    def order(position, skipped=0):  # position counts this process's images, over all steps
        step, place = position // local_size, position % local_size
        drawn = step * batch_size + local_start + place
        epoch, rank = drawn // images, (drawn + skipped) % images
        # index_shuffle needs mixed bits: seeded with plain counters, its orders are far from uniform.
        key = tf.random.stateless_uniform((2,), tf.stack([seed, epoch]), minval=None, maxval=None, dtype=tf.int64)
        index = tf.random.experimental.index_shuffle(rank, key, images - 1)
        return index, tf.random.experimental.stateless_fold_in(key, index)

    span = (start_step * local_size, tf.int64.max)
    return _tokens(span, order, source, palette, augmentation, local_size, max_skipped)


def examples(
    source: Source,
    palette: Palette,
    augmentation: Augmentation,
    *,
    batch_size: int,
    epochs: int = 1,
    seed: int = 0,
    start: int = 0,
    max_skipped: int = 0,
) -> Iterator[dict[str, np.ndarray]]:
    """Passes over the source in its order, each image augmented in a way fixed by its place, the pass and the seed.

    start: images left out at the beginning, over all passes.  seed: 0 to 2**31 - 1.

    Yields what `batches` does; the last batch holds what is left.

    Raises:
      InputError: as `batches`.
    """
    span = (start, epochs * len(source))
    return _tokens(span, _in_order(len(source), seed), source, palette, augmentation, batch_size, max_skipped)


def originals(
    source: Source,
    augmentation: Augmentation,
    *,
    batch_size: int,
    max_skipped: int = 0,
    shuffle_seed: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """One pass over the source as pictures: "image" (b, r, r, 3) uint8, and "label" and "index" as in `batches`.

    shuffle_seed: of a random order; None keeps the source's.

    Raises:
      InputError: as `batches`; the source holds tokens.
    """
    if isinstance(source, TokenSource):
        raise InputError("this source holds tokens, no images; name the images' own source")
    in_order, images = _in_order(len(source), 0), len(source)

    def shuffled(position, skipped=0):
        key = tf.random.stateless_uniform((2,), (shuffle_seed, 0), minval=None, maxval=None, dtype=tf.int64)
        return in_order(tf.random.experimental.index_shuffle((position + skipped) % images, key, images - 1))

    order = in_order if shuffle_seed is None else shuffled
    options = {"batch_size": batch_size, "max_skipped": max_skipped}
    return load_images(0, images, order, source, augmentation, lambda dataset: dataset, **options)


def _in_order(images, seed):
    def order(position, skipped=0):
        index = (position + skipped) % images
        return index, tf.stack([seed * 2**32 + position // images, index])

    return order


def _tokens(span, order, source, palette, augmentation, batch_size, max_skipped):
    if isinstance(source, TokenSource):
        return _stored_tokens(span, order, source, palette, augmentation, batch_size)
    table = tf.constant(palette.table)

    @tf.autograph.experimental.do_not_convert
    def encode(batch):
        image = batch.pop("image")
        red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
        tokens = tf.gather(table, red + green * 2**8 + blue * 2**16)
        return {"tokens": tf.reshape(tf.cast(tokens, tf.int32), (-1, image.shape[1] * image.shape[2]))} | batch

    options = {"batch_size": batch_size, "max_skipped": max_skipped}
    return load_images(*span, order, source, augmentation, lambda dataset: dataset.map(encode), **options)


def _stored_tokens(span, order, source, palette, augmentation, batch_size):
    if source.resolution != augmentation.resolution:
        raise InputError(
            f"the tokens are of {source.resolution}x{source.resolution} images, but "
            f"model.resolution={augmentation.resolution}; set model.resolution={source.resolution}"
        )
    positions = tf.data.Dataset.range(*span)
    indices = positions.map(lambda position: order(position)[0], num_parallel_calls=CORES).batch(batch_size)
    return _read_tokens(numpy_batches(indices), source, palette)


def _read_tokens(indices, source, palette):
    for index in indices:
        tokens = source.read(index)
        if tokens.min() < 0 or tokens.max() >= len(palette):
            raise InputError(
                f"the tokens span [{tokens.min()}, {tokens.max()}], but the palette has {len(palette)} colors; give "
                "the palette that made them as palette.path"
            )
        yield {"tokens": tokens, "label": source.labels[index], "index": index.astype(np.int32)}
