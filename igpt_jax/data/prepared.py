"""TFDS image sets: prepared once as array_record files, which allow random access."""

import contextlib
import functools
import io
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from igpt_jax.config import EMBEDDED
from igpt_jax.data import builders
from igpt_jax.data.records import FileSource, MemorySource
from igpt_jax.data.tensorflow import tf, tfds
from igpt_jax.errors import InputError
from igpt_jax.storage import BUCKETS, as_path, in_bucket, local_copy, scratch, upload_directory

_OWN = {"digits": builders.Digits, "emoji": builders.Emoji}
_MEMORY = 2**30  # bytes; images of one size that take no more together are decoded once and stay in memory
_CHUNK = 64  # records that are read at once


def prepare(name: str, directory: str = "", config: tfds.core.BuilderConfig | None = None) -> tfds.core.DatasetBuilder:
    """Prepares a data set as array_record files, unless the directory holds them already.

    The progress of a download is shown on stderr.

    Args:
      name: "digits", "emoji", or a name that `tfds.builder` takes.
      directory: TFDS's data_dir; "" is TFDS's own default.  One in a bucket is copied to this machine.
      config: which of a builder's data sets, such as the one that `describe_emoji` returns; None is its default.

    Returns:
      The builder of the prepared data set.

    Raises:
      InputError: the data set is unknown, was prepared in another file format, or cannot be downloaded or written.
    """
    if directory and in_bucket(as_path(directory)):
        return _prepare_in_bucket(name, as_path(directory), config)
    if not _builder(name, directory, config=config).is_prepared():
        builder = _builder(name, directory, config=config, file_format="array_record")
        try:
            with _announced(name, builder):
                builder.download_and_prepare()
        except Exception as error:  # a builder may raise anything if a download is missing or damaged
            # Another process may have prepared the same files in the meantime.
            if not _builder(name, directory, config=config).is_prepared():
                raise InputError(f"cannot prepare {name} in data.directory={directory!r}: {error}") from error
    builder = _builder(name, directory, config=config)
    formats = {file_format.value for file_format in builder.info.available_file_formats()}
    if "array_record" not in formats:
        raise InputError(
            f"{builder.data_dir} is prepared as {', '.join(formats)}, which allows no random access; prepare "
            f'it again, from the same download, with: python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder({name!r}, data_dir='NEW', file_format='array_record')"
            f".download_and_prepare(download_dir='{builder.data_dir_root / 'downloads'}')\", and set data.directory=NEW"
        )
    return builder


def _prepare_in_bucket(
    name: str, directory: pathlib.Path, config: tfds.core.BuilderConfig | None
) -> tfds.core.DatasetBuilder:
    """Prepares a copy of this machine, since array_record reads local files alone; the bucket gets what it lacks."""
    held = directory / re.split("[:/]", name)[0]
    local = local_copy(held).parent if held.exists() else scratch() / "tfds" / str(directory).removeprefix(BUCKETS)
    builder = prepare(name, str(local), config)
    prepared = pathlib.Path(builder.data_dir)
    if not (directory / prepared.relative_to(local)).exists():
        upload_directory(prepared, directory / prepared.relative_to(local))
    return builder


def open_split(builder: tfds.core.DatasetBuilder, split: str) -> MemorySource | FileSource:
    """Opens one split of a prepared data set, in memory if its images have one size and take at most 1 GiB.

    Args:
      builder: the builder of a data set that `prepare` prepared.
      split: a split of that data set in TFDS's notation, such as "train" or "train+validation".

    Returns:
      The images in the order of their records.

    Raises:
      InputError: the data set has no uint8 image, or an image to be held in memory cannot be decoded.
    """
    image, label = _keys(builder)
    features = builder.info.features
    records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    keys = {image: tf.io.FixedLenFeature((), tf.string)} | (
        {label: tf.io.FixedLenFeature((), tf.int64)} if label else {}
    )

    def read_one(row: int) -> bytes:
        try:
            return records[int(row)]
        except (RuntimeError, ValueError):  # damaged on disk; the decoder then reports the empty record
            return b""

    def read(rows: tf.Tensor) -> tf.Tensor:
        encoded = tf.numpy_function(
            lambda rows: np.array([read_one(row) for row in rows], object), [rows], tf.string, stateful=False
        )
        return tf.ensure_shape(encoded, rows.shape)

    def parse(row: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        del row
        example = tf.io.parse_single_example(record, keys)
        return example[image], tf.cast(example[label], tf.int32) if label else tf.constant(0)

    source = FileSource(
        rows=np.arange(len(records)),
        classes=features[label].num_classes if label else 0,
        read=read,
        parse=parse,
        name=lambda row: f"{builder.info.full_name}, split {split}, record {row}",
    )
    shape = features[image].shape
    small = None not in shape and len(records) * shape[0] * shape[1] * 3 <= _MEMORY
    return _into_memory(source) if small else source


def _builder(name: str, directory: str, **options: Any) -> tfds.core.DatasetBuilder:
    try:
        create = _OWN.get(name) or functools.partial(tfds.builder, name)
        return create(data_dir=directory or None, **options)
    except tfds.core.registered.DatasetNotFoundError:
        raise InputError(
            f"data.name={name!r} is not a source; choose {', '.join(EMBEDDED)}, a TFDS image set such as imagenet2012, "
            "cifar10 or stl10, folder:PATH or tokens:PATH"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot open {name} in data.directory={directory!r}: {error}") from error


@contextlib.contextmanager
def _announced(name: str, builder: tfds.core.DatasetBuilder) -> Iterator[None]:
    """Shows TFDS's output on stderr, except for this package's own data sets, which take only seconds to prepare."""
    if name in _OWN:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
        return
    print(f"preparing {name} once, as array_record files in {builder.data_dir}", file=sys.stderr, flush=True)
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        tfds.disable_progress_bar()


def _keys(builder: tfds.core.DatasetBuilder) -> tuple[str, str | None]:
    """The names of a data set's image feature and of its label feature, which may be missing."""
    features = builder.info.features
    supervised = builder.info.supervised_keys or (None, None)
    image, label = (
        next((key for key in (preferred, *features) if key and isinstance(features[key], kind)), None)
        for preferred, kind in zip(supervised[:2], (tfds.features.Image, tfds.features.ClassLabel), strict=True)
    )
    if image is None or features[image].np_dtype != np.uint8:
        raise InputError(f"{builder.info.full_name} has no uint8 image among {', '.join(features)}; choose another set")
    return image, label


def _into_memory(source: FileSource) -> MemorySource:
    """Decodes every image of a source whose images have one size."""

    def load(row: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = source.parse(row, record)
        return tf.io.decode_image(encoded, channels=3, expand_animations=False), label

    rows = tf.data.Dataset.from_tensor_slices(source.rows).batch(_CHUNK)
    records = rows.map(lambda rows: (rows, source.read(rows))).prefetch(1).unbatch()
    decoded = records.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    try:
        chunks = list(decoded.batch(_CHUNK).as_numpy_iterator())
    except tf.errors.OpError:
        raise InputError(f"{source.complaint(_count_whole(decoded))}; prepare the set again") from None
    images, labels = (np.concatenate(part) for part in zip(*chunks, strict=True))
    return MemorySource(images, labels, source.classes)


def _count_whole(decoded: tf.data.Dataset) -> int:
    """How many images at the start of a dataset can be decoded."""
    count = 0
    with contextlib.suppress(tf.errors.OpError):
        for _ in decoded:
            count += 1
    return count
