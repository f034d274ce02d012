"""The tf.data pipeline: a source's images as batches of colour tokens, each a pure function of seed and step."""

from collections.abc import Iterator

import numpy as np

from igpt_jax.data.augment import Augmentation
from igpt_jax.data.palette import Palette
from igpt_jax.data.sources import Source
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError

_THREADS = 2  # enough to keep a training step fed; the rest of the host belongs to JAX
_PREFETCH = 2  # batches


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
) -> Iterator[dict[str, np.ndarray]]:
    """An endless stream of training batches, where that of step s depends on seed and s alone.

    The stream can therefore start at any step, and the batches of all processes, put together in their order, are
    the one-process batch.  Every epoch visits every image once, in an order and with augmentations of its own.

    batch_size: images a step, over all processes.  start_step: the step of the first batch.

    Yields, with b = batch_size / process_count: "tokens" (b, r*r) int32 in [0, v), "label" (b,) int32, and "index"
    (b,) int32, the image's place in the source.

    Raises:
      InputError: a batch that the processes cannot share equally; images that the augmentation refuses.
    """
    if batch_size % process_count:
        nearest = max(1, round(batch_size / process_count)) * process_count
        raise InputError(
            f"data.batch_size={batch_size} cannot be shared equally by {process_count} processes; set {nearest}"
        )
    local_size, images = batch_size // process_count, len(source)
    local_start = process_index * local_size

    def order(position):  # counts this process's images, over all steps
        step, place = position // local_size, position % local_size
        drawn = step * batch_size + local_start + place
        epoch, rank = drawn // images, drawn % images
        # index_shuffle needs mixed bits: seeded with plain counters, its orders are far from uniform.
        key = tf.random.stateless_uniform((2,), tf.stack([seed, epoch]), minval=None, maxval=None, dtype=tf.int64)
        index = tf.random.experimental.index_shuffle(rank, key, images - 1)
        return index, tf.random.experimental.stateless_fold_in(key, index)

    positions = tf.data.Dataset.range(start_step * local_size, tf.int64.max)
    return _tokenize(positions, order, source, palette, augmentation, local_size)


def examples(
    source: Source, palette: Palette, augmentation: Augmentation, *, batch_size: int, epochs: int = 1
) -> Iterator[dict[str, np.ndarray]]:
    """Passes over the source in its order, each image augmented in a way fixed by its place and the pass.

    Yields what `batches` does; the last batch holds what is left.

    Raises:
      InputError: images that the augmentation refuses.
    """

    images = len(source)

    def order(position):
        return position % images, tf.stack([position // images, position % images])

    return _tokenize(tf.data.Dataset.range(epochs * images), order, source, palette, augmentation, batch_size)


def _tokenize(positions, order, source, palette, augmentation, batch_size):
    images, labels, table = tf.constant(source.images), tf.constant(source.labels), tf.constant(palette.table)

    @tf.autograph.experimental.do_not_convert  # conversion would wrap the InputError of an augmentation
    def load(position):
        index, key = order(position)
        return augmentation(images[index], key), labels[index], tf.cast(index, tf.int32)

    @tf.autograph.experimental.do_not_convert
    def encode(image, label, index):
        red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
        tokens = tf.gather(table, red * 2**16 + green * 2**8 + blue)
        tokens = tf.reshape(tokens, (-1, image.shape[1] * image.shape[2]))
        return {"tokens": tf.cast(tokens, tf.int32), "label": label, "index": index}

    options = tf.data.Options()
    options.threading.private_threadpool_size = _THREADS
    options.threading.max_intra_op_parallelism = 1
    dataset = positions.map(load, num_parallel_calls=_THREADS).batch(batch_size).map(encode)
    return dataset.prefetch(_PREFETCH).with_options(options).as_numpy_iterator()
