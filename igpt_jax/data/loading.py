"""Loads images in a given order, decodes and augments them, and skips and reports those that are broken."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

from igpt_jax.cores import CORES
from igpt_jax.data.augment import Augmentation
from igpt_jax.data.records import FileSource, PixelSource
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError
from igpt_jax.types import HostBatch

_PREFETCH = 2  # batches
_CHUNK = 16  # records that are read at once
_CANDIDATES = 16  # images tried for one position before giving up, when broken images are skipped

# Chooses the image of a position: from the position () int64, and optionally how many images to skip after the one that
# belongs there, to the image's index in the source () int64 and a seed (2,) int64.
Order = Callable[..., tuple[tf.Tensor, tf.Tensor]]
# Finishes a dataset of batches, such as by encoding images as tokens.
Finish = Callable[[tf.data.Dataset], tf.data.Dataset]


def load_images(
    start: int,
    stop: int,
    order: Order,
    source: PixelSource | FileSource,
    augmentation: Augmentation,
    *,
    batch_size: int,
    max_skipped: int,
    finish: Finish = lambda dataset: dataset,
) -> Iterator[HostBatch]:
    """Loads one image for each position from `start` up to `stop`, as a pure function of the position.

    An image that cannot be decoded is reported on stderr and replaced by the next one in the order that can, at most
    `max_skipped` times in all and 15 times in a row.

    Args:
      start: the first position.
      stop: one past the last position.
      order: chooses the image and the seed of a position.
      source: the images.
      augmentation: what happens to each image.
      batch_size: images in a batch.
      max_skipped: how many images that cannot be decoded are skipped before it fails.
      finish: applied to the dataset of batches of {"image", "label", "index"}; by default it leaves them as they are.

    Yields:
      What `finish` makes of the batches, as numpy arrays.  The last batch may be smaller.

    Raises:
      InputError: too many images are broken; the message names the last one (raised while iterating).
    """
    if not isinstance(source, FileSource):
        images = _from_memory(_positions(start, stop), order, source, augmentation)
        return numpy_batches(finish(images.batch(batch_size)))

    def stream(start: int, attempts: int) -> Iterator[HostBatch]:
        images = _from_files(_positions(start, stop), order, source, augmentation, attempts)
        return numpy_batches(finish(images.batch(batch_size)))

    return _decodable(stream(start, 0), start, stream, source, augmentation, max_skipped)


def numpy_batches(dataset: tf.data.Dataset) -> Iterator[Any]:
    """Iterates over a dataset's elements as numpy arrays, preparing a few in advance on threads of its own."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = CORES
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False  # there is nothing to tune, and its thread can delay the exit by a minute
    return dataset.prefetch(_PREFETCH).with_options(options).as_numpy_iterator()


def _decodable(
    fast: Iterator[HostBatch],
    start: int,
    stream: Callable[[int, int], Iterator[HostBatch]],
    source: FileSource,
    augmentation: Augmentation,
    max_skipped: int,
) -> Iterator[HostBatch]:
    """Uses the fast stream up to the first broken image, and then the slower one that replaces broken images.

    Up to there both give the same batches, because each image is a function of its position.
    """
    try:
        for batch in fast:
            yield batch
            start += len(batch["index"])
    except tf.errors.OpError:
        careful = stream(start, _CANDIDATES if max_skipped else 1)
    else:
        return
    yield from _count_broken(careful, source, augmentation, max_skipped)


def _count_broken(
    stream: Iterator[HostBatch], source: FileSource, augmentation: Augmentation, max_skipped: int
) -> Iterator[HostBatch]:
    """Removes "broken" and "wanted" from the batches, and reports the images that they mark."""
    known: set[int] = set()
    for batch in stream:
        broken, wanted = batch.pop("broken"), batch.pop("wanted")
        for index in sorted(set(wanted[broken > 0].tolist()) - known):
            known.add(index)
            complaint = source.complaint(index, augmentation.max_pixels)
            if not max_skipped:
                raise InputError(f"{complaint}; mend or remove it, or set on_error=skip")
            if len(known) > max_skipped or broken.max() == _CANDIDATES:
                raise InputError(
                    f"{complaint}; {len(known)} images cannot be decoded, and data.max_skipped={max_skipped} in all or "
                    f"{_CANDIDATES - 1} in a row may be skipped; mend or remove them"
                )
            print(f"skipped {len(known)} of at most {max_skipped}: {complaint}", file=sys.stderr, flush=True)
        yield batch


def _positions(start: int, stop: int) -> tf.data.Dataset:
    return tf.data.Dataset.range(start, stop)


def _from_memory(
    positions: tf.data.Dataset, order: Order, source: PixelSource, augmentation: Augmentation
) -> tf.data.Dataset:
    draw, labels = source.drawer(augmentation), tf.constant(source.labels)

    @tf.autograph.experimental.do_not_convert  # AutoGraph would wrap an augmentation's InputError in its own error
    def load(position: tf.Tensor) -> dict[str, tf.Tensor]:
        index, key = order(position)
        return {"image": draw(index, key), "label": labels[index], "index": tf.cast(index, tf.int32)}

    return positions.map(load, num_parallel_calls=CORES)


def _from_files(
    positions: tf.data.Dataset, order: Order, source: FileSource, augmentation: Augmentation, attempts: int
) -> tf.data.Dataset:
    """Reads records in chunks and decodes them.

    With attempts=0, an image that cannot be decoded raises a TensorFlow error.  Otherwise the next images in the order
    replace it, up to that many images are tried, and the examples have two more entries: "wanted" (), the index of the
    image that belongs to the position, and "broken" (), how many images before the chosen one could not be decoded.  If
    none could be, "broken" equals `attempts` and the image is black.
    """
    rows = tf.constant(source.rows)

    @tf.autograph.experimental.do_not_convert
    def choose(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return position, *order(position)

    @tf.autograph.experimental.do_not_convert
    def read(position: tf.Tensor, index: tf.Tensor, key: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        del position
        return index, key, source.read(tf.gather(rows, index))

    @tf.autograph.experimental.do_not_convert
    def decode(index: tf.Tensor, key: tf.Tensor, record: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded, label = source.parse(rows[index], record)
        image = augmentation.of_encoded(encoded, key)
        return {"image": image, "label": label, "index": tf.cast(index, tf.int32)}

    @tf.autograph.experimental.do_not_convert
    def decode_first(position: tf.Tensor, index: tf.Tensor, key: tf.Tensor) -> dict[str, tf.Tensor]:
        del key
        wanted = tf.cast(index, tf.int32)

        @tf.autograph.experimental.do_not_convert
        def attempt(broken: tf.Tensor) -> dict[str, tf.Tensor]:
            candidate, seed = order(position, broken)
            image = decode(candidate, seed, source.read(rows[candidate][None])[0])
            return image | {"wanted": wanted, "broken": broken}

        black = tf.zeros((augmentation.resolution, augmentation.resolution, 3), tf.uint8)
        nothing = {
            "image": black,
            "label": 0,
            "index": wanted,
            "wanted": wanted,
            "broken": tf.constant(attempts, tf.int64),
        }
        candidates = tf.data.Dataset.range(attempts).map(attempt).ignore_errors()
        return candidates.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1).get_single_element()

    chosen = positions.map(choose, num_parallel_calls=CORES)
    if attempts:
        return chosen.map(decode_first, num_parallel_calls=CORES)
    return chosen.batch(_CHUNK).map(read, num_parallel_calls=CORES).unbatch().map(decode, num_parallel_calls=CORES)
