"""The tf.data pipeline: streams batches of color tokens, each batch a pure function of the seed and the step."""

from collections.abc import Iterator

import numpy as np

from igpt_jax.cores import CORES
from igpt_jax.data.augment import Augmentation
from igpt_jax.data.loading import Order, load_images, numpy_batches
from igpt_jax.data.records import FileSource, PixelSource, Source, TokenSource
from igpt_jax.data.tensorflow import tf
from igpt_jax.data.tokenizer import Codec, Tokenizer
from igpt_jax.errors import InputError
from igpt_jax.types import HostBatch


def batches(
    source: Source,
    palette: Tokenizer,
    augmentation: Augmentation,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    max_skipped: int = 0,
) -> Iterator[HostBatch]:
    """Streams training batches without end; the batch of step s depends only on the seed and s.

    The stream can therefore start at any step.  The batches of all processes, concatenated in the order of the
    processes, equal the batch of a single process.  Every epoch visits every image once, in a different order and with
    different augmentations.  An image that cannot be decoded is replaced by the next one in the epoch's order that can.

    Args:
      source: the images, or their tokens.
      palette: encodes the images; must be the one that made the tokens of a token source.
      augmentation: what happens to each image, in pixels; skipped for a token source.
      seed: of the order and of the augmentations.
      batch_size: images in a step, over all processes.
      start_step: the step of the first batch.
      process_index: which share of each batch to load, 0 to process_count - 1.
      process_count: number of processes that share each batch.
      max_skipped: how many images that cannot be decoded are skipped before it fails.

    Yields:
      With b = batch_size / process_count: "tokens" (b, r*r) int32 in [0, v), "label" (b,) int32, and "index" (b,)
      int32, the index of each image in the source.

    Raises:
      InputError: the processes cannot share the batch equally, the augmentation cannot use the images, or (while
        iterating) too many images are broken or the tokens do not fit the palette.
    """
    order, local_size = _training_order(len(source), seed, batch_size, process_index, process_count)
    span = (start_step * local_size, tf.int64.max)
    return _tokens(span, order, source, palette, augmentation, local_size, max_skipped)


def image_batches(
    source: Source,
    augmentation: Augmentation,
    *,
    seed: int,
    batch_size: int,
    start_step: int = 0,
    max_skipped: int = 0,
) -> Iterator[HostBatch]:
    """Streams the images of `batches` instead of their tokens, in a single process, for training a codec.

    Args:
      source: the images; not a token source.
      augmentation: as for `batches`.
      seed: as for `batches`.
      batch_size: as for `batches`.
      start_step: as for `batches`.
      max_skipped: as for `batches`.

    Yields:
      "image" (b, r, r, 3) uint8 RGB in 0..255, and "label" and "index" as in `batches`.

    Raises:
      InputError: the source holds tokens, or as in `batches`.
    """
    pixels = _with_pixels(source)
    order, _ = _training_order(len(pixels), seed, batch_size, process_index=0, process_count=1)
    span = (start_step * batch_size, tf.int64.max)
    return load_images(*span, order, pixels, augmentation, batch_size=batch_size, max_skipped=max_skipped)


def _training_order(
    images: int, seed: int, batch_size: int, process_index: int, process_count: int
) -> tuple[Order, int]:
    """Returns a random order of every epoch for this process's share of the batches, and the size of the share."""
    if batch_size % process_count:
        nearest = max(1, round(batch_size / process_count)) * process_count
        raise InputError(
            f"data.batch_size={batch_size} cannot be shared equally by {process_count} processes; set {nearest}"
        )
    local_size = batch_size // process_count
    local_start = process_index * local_size

    def order(position: tf.Tensor, skipped: tf.Tensor | int = 0) -> tuple[tf.Tensor, tf.Tensor]:
        # `position` counts the images of this process over all steps; `number` counts those of all processes.
        step, row = position // local_size, position % local_size
        number = step * batch_size + local_start + row
        epoch, rank = number // images, (number + skipped) % images
        # index_shuffle needs well-mixed bits: its orders are far from uniform if consecutive integers seed it.
        key = tf.random.stateless_uniform((2,), tf.stack([seed, epoch]), minval=None, maxval=None, dtype=tf.int64)
        index = tf.random.experimental.index_shuffle(rank, key, images - 1)
        return index, tf.random.experimental.stateless_fold_in(key, index)

    return order, local_size


def examples(
    source: Source,
    palette: Tokenizer,
    augmentation: Augmentation,
    *,
    batch_size: int,
    epochs: int = 1,
    seed: int = 0,
    start: int = 0,
    max_skipped: int = 0,
) -> Iterator[HostBatch]:
    """Streams one or more epochs in the order of the source, for evaluation and for probes.

    The augmentation of an image depends only on its index, the epoch and the seed.

    Args:
      source: the images, or their tokens.
      palette: encodes the images; must be the one that made the tokens of a token source.
      augmentation: what happens to each image, in pixels; skipped for a token source.
      batch_size: images in a batch.
      epochs: how often to go through the source.
      seed: of the augmentations, 0 to 2**31 - 1.
      start: how many images to leave out at the beginning, counted over all epochs.
      max_skipped: how many images that cannot be decoded are skipped before it fails.

    Yields:
      "tokens", "label" and "index" as in `batches`.  The last batch may be smaller.

    Raises:
      InputError: as in `batches`.
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
) -> Iterator[HostBatch]:
    """Streams one epoch of images instead of tokens.

    Args:
      source: the images; not a token source.
      augmentation: what happens to each image.
      batch_size: images in a batch.
      max_skipped: how many images that cannot be decoded are skipped before it fails.
      shuffle_seed: of a random order; None keeps the order of the source.

    Yields:
      "image" (b, r, r, 3) uint8 RGB in 0..255, and "label" and "index" as in `batches`.  The last batch may be smaller.

    Raises:
      InputError: the source holds tokens, or as in `batches`.
    """
    pixels, images = _with_pixels(source), len(source)
    in_order = _in_order(images, 0)

    def shuffled(position: tf.Tensor, skipped: tf.Tensor | int = 0) -> tuple[tf.Tensor, tf.Tensor]:
        key = tf.random.stateless_uniform((2,), (shuffle_seed, 0), minval=None, maxval=None, dtype=tf.int64)
        return in_order(tf.random.experimental.index_shuffle((position + skipped) % images, key, images - 1))

    order = in_order if shuffle_seed is None else shuffled
    return load_images(0, images, order, pixels, augmentation, batch_size=batch_size, max_skipped=max_skipped)


def _with_pixels(source: Source) -> PixelSource | FileSource:
    """Returns a source of images, and raises InputError for one of tokens."""
    if isinstance(source, TokenSource):
        raise InputError("this source holds tokens, not images; name the source of the images")
    return source


def _in_order(images: int, seed: int) -> Order:
    def order(position: tf.Tensor, skipped: tf.Tensor | int = 0) -> tuple[tf.Tensor, tf.Tensor]:
        index = (position + skipped) % images
        return index, tf.stack([seed * 2**32 + position // images, index])

    return order


def _tokens(
    span: tuple[int, int],
    order: Order,
    source: Source,
    palette: Tokenizer,
    augmentation: Augmentation,
    batch_size: int,
    max_skipped: int,
) -> Iterator[HostBatch]:
    if isinstance(source, TokenSource):
        return _stored_tokens(span, order, source, palette, augmentation, batch_size)
    if isinstance(palette, Codec):
        images = load_images(*span, order, source, augmentation, batch_size=batch_size, max_skipped=max_skipped)
        return ({"tokens": palette.encode(batch.pop("image"))} | batch for batch in images)
    table = tf.constant(palette.table)

    @tf.autograph.experimental.do_not_convert
    def encode(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        image = batch.pop("image")
        red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
        tokens = tf.gather(table, red + green * 2**8 + blue * 2**16)
        return {"tokens": tf.reshape(tf.cast(tokens, tf.int32), (-1, image.shape[1] * image.shape[2]))} | batch

    return load_images(
        *span,
        order,
        source,
        augmentation,
        batch_size=batch_size,
        max_skipped=max_skipped,
        finish=lambda dataset: dataset.map(encode),
    )


def _stored_tokens(
    span: tuple[int, int],
    order: Order,
    source: TokenSource,
    palette: Tokenizer,
    augmentation: Augmentation,
    batch_size: int,
) -> Iterator[HostBatch]:
    resolution = augmentation.resolution // palette.scale
    if source.resolution != resolution:
        raise InputError(
            f"the tokens are of {source.resolution}x{source.resolution} images, but "
            f"model.resolution={resolution}; set model.resolution={source.resolution}"
        )
    positions = tf.data.Dataset.range(*span)
    indices = positions.map(lambda position: order(position)[0], num_parallel_calls=CORES).batch(batch_size)
    return _read_tokens(numpy_batches(indices), source, palette)


def _read_tokens(indices: Iterator[np.ndarray], source: TokenSource, palette: Tokenizer) -> Iterator[HostBatch]:
    for index in indices:
        tokens = source.read(index)
        if tokens.min() < 0 or tokens.max() >= len(palette):
            raise InputError(
                f"the tokens span [{tokens.min()}, {tokens.max()}], but the palette has {len(palette)} colors; give "
                "the palette that made them as palette.path"
            )
        yield {"tokens": tokens, "label": source.labels[index], "index": index.astype(np.int32)}
