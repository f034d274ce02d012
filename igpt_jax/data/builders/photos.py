"""Crops of scikit-learn's two photographs as a TFDS data set."""

import numpy as np

from igpt_jax.data.tensorflow import tfds

_SIDE = 32  # pixels
_TRAIN_STRIDE = 16  # training crops overlap by half; test crops do not
_TRAIN_WIDTH = 480  # columns of the 640; the test crops come from the others


class Photos(tfds.core.GeneratorBasedBuilder):
    """32x32 crops in real colour of a Chinese palace and of a flower, labelled by photograph.

    1,450 training crops come from the left three quarters of the photographs, 130 test crops from the rest, so no
    pixel is in both.  `index` counts the crops of a split, row by row.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(
            description="32x32 crops of the two photographs that scikit-learn carries.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(_SIDE, _SIDE, 3)),
                    "label": tfds.features.ClassLabel(names=["china", "flower"]),
                    "index": np.int32,
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            homepage="https://scikit-learn.org/stable/modules/generated/sklearn.datasets.load_sample_images.html",
            citation=(
                "Pedregosa, F. et al. (2011). Scikit-learn: Machine Learning in Python. "
                "Journal of Machine Learning Research 12, 2825-2830."
            ),
        )

    def _split_generators(self, dl_manager):
        from sklearn.datasets import load_sample_images  # a second to import, and needed only once

        photographs = load_sample_images().images
        return {
            "train": self._generate_examples([photo[:, :_TRAIN_WIDTH] for photo in photographs], _TRAIN_STRIDE),
            "test": self._generate_examples([photo[:, _TRAIN_WIDTH:] for photo in photographs], _SIDE),
        }

    def _generate_examples(self, photographs, stride):
        index = 0
        for label, photo in enumerate(photographs):
            for top in range(0, photo.shape[0] - _SIDE + 1, stride):
                for left in range(0, photo.shape[1] - _SIDE + 1, stride):
                    crop = photo[top : top + _SIDE, left : left + _SIDE]
                    yield index, {"image": crop, "label": label, "index": index}
                    index += 1
