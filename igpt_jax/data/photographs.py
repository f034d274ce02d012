"""The color photographs in scikit-image and scikit-learn, each divided into three regions, one for each split."""

import functools

import numpy as np

from igpt_jax.data.records import CropSource

# Functions of skimage.data whose files are part of the package.
_SCIKIT_IMAGE = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
_COUNTS = {"train": 4096, "validation": 512, "test": 1024}  # squares in an epoch


def open_photographs(split: str, *, fold_validation: bool = False) -> CropSource:
    """Random squares of ten color photographs; no pixel is in two splits.

    "train" has the left two thirds of every photograph, "validation" the upper half of the rest and "test" the lower
    half.  In all splits, the largest square is the largest that fits into the test region.  An image's label is the
    number of its photograph.

    Args:
      split: "train", "validation" or "test".
      fold_validation: whether "train" includes the validation region.

    Returns:
      The squares; another seed cuts other squares.
    """
    photographs = [_regions(photograph) for photograph in load_photographs()]
    classes, image = len(photographs), np.arange(_COUNTS[split])
    pictures = [regions[split] for regions in photographs]
    sides = [min(regions["test"].shape[:2]) for regions in photographs]
    rows = labels = image % classes
    if split == "train" and fold_validation:
        pictures, sides = pictures + [regions["validation"] for regions in photographs], sides * 2
        rows = labels + classes * (image // classes % 5 == 4)  # the validation regions hold a fifth of all pixels
    return CropSource(pictures, sides, rows, labels.astype(np.int32), classes)


@functools.cache
def load_photographs() -> list[np.ndarray]:
    """The whole photographs, each (h, w, 3) uint8 RGB in 0..255."""
    import skimage.data  # imported here because other data sets do not need them
    from sklearn.datasets import load_sample_images

    scikit_image = [getattr(skimage.data, name)() for name in _SCIKIT_IMAGE]
    return [*scikit_image, skimage.data.stereo_motorcycle()[0], *load_sample_images().images]


def _regions(photograph: np.ndarray) -> dict[str, np.ndarray]:
    height, width = photograph.shape[0] // 2, photograph.shape[1] // 3
    left, right = photograph[:, :-width], photograph[:, -width:]
    return {"train": left, "validation": right[:height], "test": right[height : 2 * height]}
