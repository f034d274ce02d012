"""The color photographs that scikit-image and scikit-learn carry, each cut into three regions: one for every split."""

import functools

import numpy as np

from igpt_jax.data.records import CropSource

# Functions of skimage.data whose files come with the package.
_SCIKIT_IMAGE = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "immunohistochemistry", "retina", "rocket")
_COUNTS = {"train": 4096, "validation": 512, "test": 1024}  # squares that make an epoch


def open_photographs(split: str, *, fold_validation: bool = False) -> CropSource:
    """Random squares of ten color photographs; no pixel is in two splits.

    Training has the left two thirds of every photograph, validation the upper half of the rest and the test its lower
    half.  The longest square is the longest that fits the test's region, in all splits.  The label is the photograph.

    fold_validation: validation's region is training's too.
    """
    regions = [_regions(photograph) for photograph in load_photographs()]
    classes, image = len(regions), np.arange(_COUNTS[split])
    pictures, sides = [of[split] for of in regions], [min(of["test"].shape[:2]) for of in regions]
    rows = labels = image % classes
    if split == "train" and fold_validation:
        pictures, sides = pictures + [of["validation"] for of in regions], sides * 2
        rows = labels + classes * (image // classes % 5 == 4)  # a fifth of the pixels are validation's
    return CropSource(pictures, sides, rows, labels.astype(np.int32), classes)


@functools.cache
def load_photographs() -> list[np.ndarray]:
    """The whole photographs, (h, w, 3) uint8 RGB."""
    import skimage.data  # imported here: other data sets do not need them
    from sklearn.datasets import load_sample_images

    found = [getattr(skimage.data, name)() for name in _SCIKIT_IMAGE]
    return [*found, skimage.data.stereo_motorcycle()[0], *load_sample_images().images]


def _regions(photograph):
    height, width = photograph.shape[0] // 2, photograph.shape[1] // 3
    left, right = photograph[:, :-width], photograph[:, -width:]
    return {"train": left, "validation": right[:height], "test": right[height : 2 * height]}
