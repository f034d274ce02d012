"""Measures images to tokens, files to batches, and pixels to palettes, beside their peers."""

import dataclasses
import io
import itertools
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.benchmark.measure import Result, Side, compare

_RNG = np.random.default_rng(0)


def tokens() -> list[Result]:
    """Encodes 32x32 images as tokens of 512 colors, beside transformers' image processor."""
    from transformers import ImageGPTImageProcessorPil

    from igpt_jax.data.palette import Palette

    palette = Palette(_RNG.uniform(-1, 1, (512, 3)))
    processor = ImageGPTImageProcessorPil(clusters=palette.colors, do_resize=False)
    images = _crops(2048)
    few = list(images[:16])

    def theirs() -> np.ndarray:
        return processor(few, return_tensors="np")["input_ids"]

    np.testing.assert_array_equal(palette.encode(images[:16]), theirs())
    return compare(
        "tokens of ready 32x32 images",
        "images/s",
        Side(lambda: palette.encode(images), len(images)),
        {"transformers' ImageGPTImageProcessor": Side(theirs, len(few))},
        "the tokens are equal",
    )


def input() -> list[Result]:
    """The whole input pipeline of ImageNet, beside a tf.data pipeline that only decodes the same JPEGs."""
    from igpt_jax.config import DataConfig
    from igpt_jax.data.augment import augmentations
    from igpt_jax.data.palette import Palette
    from igpt_jax.data.pipeline import batches
    from igpt_jax.data.sources import load_source
    from igpt_jax.data.tensorflow import tf

    threads, batch, count = os.cpu_count(), 64, 768
    with tempfile.TemporaryDirectory() as directory:
        files = _write_photographs(pathlib.Path(directory), 256)
        config = DataConfig(name=f"folder:{directory}", fold_validation=True)
        source, (crop, _) = load_source(config, "train"), augmentations(config, 32)
        palette = Palette(_RNG.uniform(-1, 1, (512, 3)))
        ours = batches(source, palette, crop, seed=0, batch_size=batch)

        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        decoded = (
            tf.data.Dataset.from_tensor_slices(files)
            .repeat()
            .map(lambda file: tf.io.decode_jpeg(tf.io.read_file(file), channels=3), num_parallel_calls=threads)
        )
        theirs = iter(decoded.prefetch(2 * batch).with_options(options))
        assert next(theirs).shape == (375, 500, 3)
        assert next(ours)["tokens"].shape == (batch, 1024)
        return compare(
            "500x375 JPEG to random crop to 32x32 to tokens",
            "images/s",
            Side(lambda: _drain(ours, count // batch), count),
            {"tf.data that only decodes": Side(lambda: _drain(theirs, count), count)},
            "both read the same files; the deviation of reduced-scale decoding is in tests/data/test_decode.py",
        )


def palette() -> list[Result]:
    """Fits 512 colors to a million pixels, beside scikit-learn's KMeans with one start.

    It is one round without warm-up, since it takes minutes.
    """
    from sklearn.cluster import KMeans

    from igpt_jax.data import kmeans
    from igpt_jax.data.palette import Palette

    pixels = _photographs_pixels(1_000_000)
    errors = {}

    def ours() -> Palette:
        fitted, report = kmeans.fit(pixels, 512)
        errors["ours"] = report.mean_squared_error * pixels.size
        return fitted

    def theirs() -> None:
        errors["theirs"] = KMeans(512, n_init=1, random_state=0).fit(pixels.astype(np.float32)).inertia_

    name, peers = "palette of 512 colors for 1,000,000 pixels", {"scikit-learn's KMeans": Side(theirs, 1)}
    (result,) = compare(name, "fits/s", Side(ours, 1), peers, "", rounds=1, warm=False)
    inertia = f"inertia {errors['ours']:.5g} against {errors['theirs']:.5g} ({errors['ours'] / errors['theirs']:.4f})"
    return [dataclasses.replace(result, remark=inertia)]


def _drain(stream: Iterator[Any], count: int) -> None:
    for _ in itertools.islice(stream, count):
        pass


def _crops(count: int) -> np.ndarray:
    """Random crops of scikit-learn's photographs, (count, 32, 32, 3) uint8."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    corners = _RNG.integers(0, (427 - 32, 640 - 32), (count, 2))
    return np.stack([photographs[i % 2][y : y + 32, x : x + 32] for i, (y, x) in enumerate(corners)])


def _write_photographs(directory: pathlib.Path, count: int) -> list[str]:
    """Writes random crops of scikit-learn's photographs as JPEGs of 500x375 pixels.  Returns their paths.

    They have 48 kB on average, about as ImageNet's files.
    """
    from PIL import Image
    from sklearn.datasets import load_sample_images

    photographs = [Image.fromarray(photo) for photo in load_sample_images().images]
    files = []
    for i in range(count):
        width = int(_RNG.integers(400, 600))
        left, top = _RNG.integers(0, 640 - width), _RNG.integers(0, 427 - width * 2 // 3)
        part = photographs[i % 2].resize((500, 375), box=(left, top, left + width, top + width * 2 // 3))
        file = io.BytesIO()
        part.save(file, "JPEG", quality=int(_RNG.integers(80, 96)))
        files.append(str(directory / f"{i:05d}.jpg"))
        pathlib.Path(files[-1]).write_bytes(file.getvalue())
    return files


def _photographs_pixels(count: int) -> np.ndarray:
    """Random pixels of scikit-learn's photographs, (count, 3) uint8; the second half repeats the first with noise."""
    from sklearn.datasets import load_sample_images

    pixels = np.concatenate([photo.reshape(-1, 3) for photo in load_sample_images().images])
    pixels = _RNG.choice(pixels, count // 2, replace=False)
    noisy = np.clip(pixels.astype(int) + _RNG.integers(-3, 4, pixels.shape), 0, 255).astype(np.uint8)
    return np.concatenate([pixels, noisy])
