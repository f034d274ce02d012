"""Tokens of real images, in two files, since the accelerator's machine may have neither TensorFlow nor scikit-learn.

`python -m experiments.accelerator.data` makes the files again, on a machine that has all requirements of the library.
"""

import pathlib

import numpy as np

from igpt_jax.config import ModelConfig

DIGITS = pathlib.Path(__file__).with_name("digits.npz")
PHOTOGRAPHS = pathlib.Path(__file__).with_name("photographs.npz")
TRAINING_CROPS, HELD_OUT_CROPS = 16_384, 512


def digits() -> np.ndarray:
    """scikit-learn's 1,437 training digits, placed at random on a 12x12 canvas: (1437, 144) int32 in [0, 16)."""
    return np.load(DIGITS)["tokens"].astype(np.int32)


def photographs(images: int, resolution: int, seed: int, *, held_out: bool = False) -> np.ndarray:
    """Random crops of scikit-learn's two photographs at half size: (images, resolution**2) int32 in [0, 512).

    Held-out crops are from the right third of each photograph, and all others from the rest.
    """
    pictures = [
        np.split(picture, [2 * picture.shape[1] // 3], axis=1)[held_out] for picture in np.load(PHOTOGRAPHS).values()
    ]
    rng = np.random.default_rng(seed)
    crops = np.empty((images, resolution, resolution), np.int32)
    for i in range(images):
        picture = pictures[rng.integers(len(pictures))]
        y, x = rng.integers(0, np.array(picture.shape) - resolution + 1)
        crops[i] = picture[y : y + resolution, x : x + resolution]
    return crops.reshape(images, -1)


def crops(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of crops to train with, and of others that share no pixel with them: (n, t) int32 in [0, v)."""
    training_nt = photographs(TRAINING_CROPS, config.resolution, seed=0)
    held_out_nt = photographs(HELD_OUT_CROPS, config.resolution, seed=1, held_out=True)
    return training_nt % config.vocabulary, held_out_nt % config.vocabulary


def main() -> None:
    """Writes both files from scikit-learn's data."""
    from PIL import Image
    from sklearn.datasets import load_digits, load_sample_images

    from igpt_jax.data import kmeans

    rng = np.random.default_rng(0)
    canvases = np.zeros((1437, 12, 12), np.uint8)
    for canvas, digit in zip(canvases, load_digits().images[:1437], strict=True):
        y, x = rng.integers(0, 5, 2)
        canvas[y : y + 8, x : x + 8] = digit.clip(max=15)
    np.savez_compressed(DIGITS, tokens=canvases.reshape(len(canvases), -1))
    halved = [np.asarray(Image.fromarray(picture).reduce(2)) for picture in load_sample_images().images]
    palette, _ = kmeans.fit(np.concatenate([picture.reshape(-1, 3) for picture in halved]), 512)
    tokens = [palette.encode(picture.reshape(-1, 1, 1, 3)).reshape(picture.shape[:2]) for picture in halved]
    np.savez_compressed(PHOTOGRAPHS, *(picture.astype(np.uint16) for picture in tokens))


if __name__ == "__main__":
    main()
