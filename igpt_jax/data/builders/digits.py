"""scikit-learn's 1,797 handwritten digits as a TFDS data set."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from igpt_jax.data.tensorflow import tfds

_TRAIN = 1437  # images; the remaining 360 are the test split
_PERMUTATION_SEED = 0

_Example = tuple[int, dict[str, Any]]  # a key and the features


class Digits(tfds.core.GeneratorBasedBuilder):
    """8x8 digits by 43 writers, gray with three equal channels: 1,437 for training and 360 for testing.

    scikit-learn's levels 0..16 become rint(level * 255 / 16).  `index` is the row in scikit-learn's arrays.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="1,797 handwritten digits of 8x8 pixels, as scikit-learn embeds them.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 3)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                    "index": np.int32,
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            homepage="https://doi.org/10.24432/C50P49",
            citation=(
                "Alpaydin, E. and Kaynak, C. (1998). Optical Recognition of Handwritten Digits. "
                "UCI Machine Learning Repository."
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[_Example]]:
        from sklearn.datasets import load_digits  # takes a second to import, and is needed only once

        digits = load_digits()
        order = np.random.RandomState(_PERMUTATION_SEED).permutation(len(digits.images))
        return {
            "train": self._generate_examples(digits, order[:_TRAIN]),
            "test": self._generate_examples(digits, order[_TRAIN:]),
        }

    def _generate_examples(self, digits: Any, rows: np.ndarray) -> Iterator[_Example]:
        for position, row in enumerate(rows):
            gray = np.rint(digits.images[row] * 255 / 16).astype(np.uint8)
            yield position, {"image": np.stack([gray] * 3, axis=-1), "label": int(digits.target[row]), "index": row}
