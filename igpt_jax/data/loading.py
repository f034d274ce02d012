"""Images in the order that is asked for, decoded and augmented, with the broken ones left out and named."""

import sys
from collections.abc import Callable, Iterator

import numpy as np

from igpt_jax.cores import CORES
from igpt_jax.data.augment import Augmentation
from igpt_jax.data.records import FileSource, PixelSource
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError

_PREFETCH = 2  # batches
_CHUNK = 16  # records that are read at once
_CANDIDATES = 16  # images tried in a row for a place of a batch, where broken ones are skipped

# From a position () int64 and how many images to skip there to the place in the source () and a seed (2,), both int64.
Order = Callable[[tf.Tensor, tf.Tensor | int], tuple[tf.Tensor, tf.Tensor]]


def load_images(
    start: int,
    stop: int,
    order: Order,
    source: PixelSource | FileSource,
    augmentation: Augmentation,
    finish: Callable[[tf.data.Dataset], tf.data.Dataset],
    *,
    batch_size: int,
    max_skipped: int,
) -> Iterator[dict[str, np.ndarray]]:
    """One image for each position from start to stop, the same at every time.

    An image that cannot be decoded is replaced by the next in its position's order that can, up to `max_skipped` of
    them and 15 in a row, and named on stderr.

    finish: what is done to the batches of {"image", "label", "index"}.

    Yields batches as numpy arrays; the last holds what is left.

    Raises, while iterating:
      InputError: a broken image too many, by its name.
    """
    if not isinstance(source, FileSource):
        images = _from_memory(_positions(start, stop), order, source, augmentation)
        return numpy_batches(finish(images.batch(batch_size)))

    def stream(start, attempts):
        images = _from_files(_positions(start, stop), order, source, augmentation, attempts)
        return numpy_batches(finish(images.batch(batch_size)))

    return _decodable(stream(start, 0), start, stream, source, augmentation, batch_size, max_skipped)


def numpy_batches(dataset: tf.data.Dataset) -> Iterator:
    """Runs a dataset ahead of whoever iterates over it, on threads of its own."""
    options = tf.data.Options()
    options.threading.private_threadpool_size = CORES
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False  # nothing here is to be tuned, and its thread can delay an exit by a minute
    return dataset.prefetch(_PREFETCH).with_options(options).as_numpy_iterator()


def _decodable(fast, start, stream, source, augmentation, batch_size, max_skipped):
    """Takes the fast stream up to the first image that it cannot decode, and from there the one that tries others.

    Both give the same batches where both can, since each image is a function of its position.
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


def _count_broken(stream, source, augmentation, max_skipped):
    """Takes "broken" and "wanted" out of the batches, and names the images that they tell of."""
    known = set()
    for batch in stream:
        broken, wanted = batch.pop("broken"), batch.pop("wanted")
        for index in sorted(set(wanted[broken > 0].tolist()) - known):
            known.add(index)
            complaint = source.complaint(index, augmentation.max_pixels)
            if not max_skipped:
                raise InputError(f"{complaint}; mend or remove it, or set data.on_error=skip")
            if len(known) > max_skipped or broken.max() == _CANDIDATES:
                raise InputError(
                    f"{complaint}; {len(known)} images cannot be decoded, and data.max_skipped={max_skipped} in all or "
                    f"{_CANDIDATES - 1} in a row may be skipped; mend or remove them"
                )
            print(f"skipped {len(known)} of at most {max_skipped}: {complaint}", file=sys.stderr, flush=True)
        yield batch


def _positions(start, stop):
    return tf.data.Dataset.range(start, stop)


def _from_memory(positions, order, source, augmentation):
    draw, labels = source.drawer(augmentation), tf.constant(source.labels)

    @tf.autograph.experimental.do_not_convert  # conversion would wrap the InputError of an augmentation
    def load(position):
        index, key = order(position)
        return {"image": draw(index, key), "label": labels[index], "index": tf.cast(index, tf.int32)}

    return positions.map(load, num_parallel_calls=CORES)


def _from_files(positions, order, source, augmentation, attempts):
    """Reads records in chunks and decodes them; with attempts, what fails is replaced instead of raised.

    Then "wanted" () is the place in the source of the image that should have come, and "broken" () how many could not
    be decoded: 0, or as many as there were attempts, and the image is black.
    """
    rows = tf.constant(source.rows)

    @tf.autograph.experimental.do_not_convert
    def draw(position):
        return position, *order(position)

    @tf.autograph.experimental.do_not_convert
    def read(position, index, key):
        del position
        return index, key, source.read(tf.gather(rows, index))

    @tf.autograph.experimental.do_not_convert
    def decode(index, key, record):
        encoded, label = source.parse(rows[index], record)
        image = augmentation.of_encoded(encoded, key)
        return {"image": image, "label": label, "index": tf.cast(index, tf.int32)}

    @tf.autograph.experimental.do_not_convert
    def decode_first(position, index, key):
        del key
        wanted = tf.cast(index, tf.int32)

        @tf.autograph.experimental.do_not_convert
        def attempt(broken):
            chosen, seed = order(position, broken)
            image = decode(chosen, seed, source.read(rows[chosen][None])[0])
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

    drawn = positions.map(draw, num_parallel_calls=CORES)
    if attempts:
        return drawn.map(decode_first, num_parallel_calls=CORES)
    return drawn.batch(_CHUNK).map(read, num_parallel_calls=CORES).unbatch().map(decode, num_parallel_calls=CORES)
