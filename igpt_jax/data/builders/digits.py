"""scikit-learn's 1,797 handwritten digits as a TFDS data set."""

import numpy as np

from igpt_jax.data.tensorflow import tfds

_TRAIN = 1437  # images; the remaining 360 are the test split
_PERMUTATION_SEED = 0


class Digits(tfds.core.GeneratorBasedBuilder):
    """8x8 digits of 43 writers, gray in three equal channels: 1,437 to train on and 360 to test.

    The source's levels 0..16 become rint(level * 255 / 16).  `index` is the row in scikit-learn's arrays.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
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

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_digits  # a second to import, and needed only once

        digits = load_digits()
        order = np.random.RandomState(_PERMUTATION_SEED).permutation(len(digits.images))
        return {
            "train": self._generate_examples(digits, order[:_TRAIN]),
            "test": self._generate_examples(digits, order[_TRAIN:]),
        }

    def _generate_examples(self, digits, rows):
        for position, row in enumerate(rows):
            gray = np.rint(digits.images[row] * 255 / 16).astype(np.uint8)
            yield position, {"image": np.stack([gray] * 3, axis=-1), "label": int(digits.target[row]), "index": row}
