import itertools

import numpy as np
import pytest

from igpt_jax.config import DataConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.palette import Palette
from igpt_jax.data.photographs import load_photographs, open_photographs
from igpt_jax.data.pipeline import batches, originals
from igpt_jax.data.records import BlendedSource, CropSource, MemorySource
from igpt_jax.data.sources import load_source
from igpt_jax.errors import InputError

PALETTE = Palette(np.random.default_rng(0).uniform(-1, 1, (20, 3)))
SPLITS = ("train", "validation", "test")


def pictures(source, config, resolution, **options):
    stream = originals(source, augmentations(config, resolution)[1], batch_size=len(source), **options)
    return next(stream)


def test_the_regions_of_a_photograph_tile_it_without_overlap():
    photographs = load_photographs()
    regions = {split: open_photographs(split).pictures for split in SPLITS}
    for i, photograph in enumerate(photographs):
        seen = np.zeros(photograph.shape[:2], int)
        for split in SPLITS:
            region = regions[split][i]
            assert np.shares_memory(region, photograph)
            start = (region.ctypes.data - photograph.ctypes.data) // 3
            top, left = divmod(start, photograph.shape[1])
            seen[top : top + region.shape[0], left : left + region.shape[1]] += 1
        assert seen.max() == 1
        assert (seen == 0).sum() <= photograph.shape[1]  # a last row, where the height is odd


def test_the_test_and_training_squares_have_the_same_sizes_and_labels():
    for split, count in zip(SPLITS, (4096, 512, 1024), strict=True):
        source = load_source(DataConfig(name="photographs"), split)
        assert (len(source), source.classes, len(source.pictures)) == (count, 10, 10)
        assert source.sides == open_photographs("test").sides
        for picture, side in zip(source.pictures, source.sides, strict=True):
            assert min(picture.shape[:2]) >= side
        assert np.bincount(source.labels).min() >= count // 10


def test_folding_adds_the_pixels_of_validation_in_their_proportion():
    folded = load_source(DataConfig(name="photographs", fold_validation=True), "train")
    parts = open_photographs("train").pictures + open_photographs("validation").pictures
    for found, expected in zip(folded.pictures, parts, strict=True):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(folded.rows % 10, folded.labels)
    assert abs((folded.rows >= 10).mean() - 0.2) < 0.01
    with pytest.raises(InputError, match=r"leaves no image of data\.name=photographs for validation"):
        load_source(DataConfig(name="photographs", fold_validation=True), "validation")


@pytest.fixture(scope="module")
def coordinates():
    """A picture whose pixels say where they are: (row, column, 7)."""
    rows, columns = np.mgrid[:100, :200].astype(np.uint8)
    picture = np.stack([rows, columns, np.full_like(rows, 7)], axis=-1)
    zeros = np.zeros(2000, np.int64)
    return CropSource([picture[:50], picture], [50, 64], zeros + 1, zeros.astype(np.int32), 1)


def test_squares_are_whole_of_every_size_and_everywhere(coordinates):
    image = pictures(coordinates, DataConfig(name="photographs"), 4)["image"].astype(float)
    assert (image[..., 2] == 7).all()
    step = np.diff(image[..., 0], axis=1).mean((1, 2)), np.diff(image[..., 1], axis=2).mean((1, 2))
    np.testing.assert_allclose(*step, atol=0.7)  # square
    side = 4 * step[0]
    octaves = np.log2(64 / side)
    assert side.max() <= 65
    assert side.min() >= 15
    np.testing.assert_allclose(np.median(octaves), 1, atol=0.06)
    centers = image.mean((1, 2))[:, :2]
    free = np.array([100, 200]) - side[:, None]
    place = (centers - side[:, None] / 2) / free
    np.testing.assert_allclose(place.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(place.var(0), 1 / 12, atol=0.01)


def take(stream, count):
    return [batch["tokens"] for batch in itertools.islice(stream, count)]


@pytest.mark.parametrize("name", ["photographs", "blended_digits"])
def test_a_batch_depends_on_seed_and_step_alone_and_no_square_comes_twice(name, tmp_path):
    config = DataConfig(name=name, directory=str(tmp_path))
    source = load_source(config, "train")
    source = (
        CropSource(source.pictures, source.sides, source.rows[:30], source.labels[:30], 10)
        if (isinstance(source, CropSource))
        else BlendedSource(source.foreground.take(np.arange(30)), source.background)
    )
    training, _ = augmentations(config, 16)
    whole = take(batches(source, PALETTE, training, seed=3, batch_size=12), 10)  # four epochs
    resumed = take(batches(source, PALETTE, training, seed=3, batch_size=12, start_step=4), 6)
    np.testing.assert_array_equal(whole[4:], resumed)
    halves = [
        take(batches(source, PALETTE, training, seed=3, batch_size=12, process_index=i, process_count=2), 10)
        for i in range(2)
    ]
    np.testing.assert_array_equal(whole, np.concatenate(halves, axis=1))
    other = take(batches(source, PALETTE, training, seed=4, batch_size=12), 10)
    rows = np.concatenate(whole + other)
    assert len(np.unique(rows, axis=0)) > 0.97 * len(rows)  # plain areas may look alike


def test_blended_digits_are_the_difference_of_digit_and_photograph(tmp_path):
    config = DataConfig(name="blended_digits", directory=str(tmp_path))
    source = load_source(config, "test")
    digits = load_source(DataConfig(name="digits", directory=str(tmp_path)), "test")
    np.testing.assert_array_equal(source.labels, digits.labels)
    np.testing.assert_array_equal(source.foreground.images, digits.images)
    for found, expected in zip(source.background.pictures, open_photographs("test").pictures, strict=True):
        np.testing.assert_array_equal(found, expected)

    gray = np.full((40, 40, 3), (200, 90, 0), np.uint8)
    zeros = np.zeros(1, np.int64)
    plain = BlendedSource(source.foreground, CropSource([gray], [40], zeros, zeros.astype(np.int32), 1))
    found = pictures(plain, config, 12)
    for image, index in zip(found["image"].astype(int)[:50], found["index"][:50], strict=True):
        placed = image[..., 2]  # |digit - 0|
        np.testing.assert_array_equal(image, abs(placed[..., None] - gray[:12, :12].astype(int)))
        assert placed.sum() == digits.images[index][..., 0].sum()


def test_squares_have_no_size_of_their_own_and_cannot_be_placed():
    with pytest.raises(InputError, match=r"data\.augmentation=place is for images of one small size"):
        pictures(open_photographs("test"), DataConfig(name="photographs", augmentation="place"), 16)


def test_other_sources_know_whether_a_seed_changes_them():
    assert open_photographs("test").is_random
    assert not MemorySource(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int32), 0).is_random
