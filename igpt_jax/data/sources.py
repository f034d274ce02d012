"""Named sources of images, read through TFDS."""

import contextlib
import dataclasses
import io

import numpy as np

from igpt_jax.data import builders
from igpt_jax.data.tensorflow import tf, tfds
from igpt_jax.errors import InputError

BUILDERS = {
    "digits": builders.Digits,
    "photos": builders.Photos,
}
SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of a data set, held in memory in its fixed order.

    Attributes:
      images: (n, h, w, 3) uint8 RGB in 0..255.
      labels: (n,) int32 in [0, classes).
      classes: how many labels there are.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: int

    def __len__(self):
        return len(self.images)


def load_source(name: str, split: str, directory: str = "") -> Source:
    """Reads a split into memory, preparing the data set as array_record files if the directory does not hold it.

    name: a key of `BUILDERS`.  split: "train" or "test".  directory: TFDS's data_dir; "" is TFDS's own default.

    Raises:
      InputError: an unknown name or split, or a directory that cannot be written.
    """
    if name not in BUILDERS:
        raise InputError(f"data.name={name!r} is not a source; choose one of {', '.join(BUILDERS)}")
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not known; choose one of {', '.join(SPLITS)}")
    builder = _prepare(name, directory)
    records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    examples = [records[i] for i in range(len(records))]
    return Source(
        images=np.stack([tf.io.decode_image(example["image"], channels=3).numpy() for example in examples]),
        labels=np.array([example["label"] for example in examples], np.int32),
        classes=builder.info.features["label"].num_classes,
    )


def _prepare(name: str, directory: str) -> tfds.core.DatasetBuilder:
    def build():
        return BUILDERS[name](data_dir=directory or None, file_format="array_record")

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            build().download_and_prepare()
    except OSError as error:
        # Another process may have moved the same files into place first.
        if not build().is_prepared():
            raise InputError(f"cannot prepare {name} in data.directory={directory!r}: {error}; name another") from error
    return build()
