import itertools

import numpy as np
import pytest
import scipy.stats

from igpt_jax.config import DataConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import batches, examples
from igpt_jax.data.records import MemorySource
from igpt_jax.errors import InputError

PALETTE = Palette(np.linspace(-1, 1, 16)[:, None].repeat(3, axis=1))
TRAIN, TEST = augmentations(DataConfig(name="digits"), 12)
FLIP, IDENTITY = augmentations(DataConfig(name="digits", augmentation="flip"), 8)
IMAGES = 10


@pytest.fixture(scope="module")
def source():
    """Gray images of 1..255, so that a placed image differs from the black canvas everywhere."""
    rng = np.random.default_rng(0)
    images = 17 * rng.integers(1, 16, (IMAGES, 8, 8, 1), dtype=np.uint8).repeat(3, axis=-1)
    return MemorySource(images, rng.integers(0, 5, IMAGES, dtype=np.int32), classes=5)


def take(stream, count):
    """The first batches of a stream, stacked: name -> (count, b, ...)."""
    found = list(itertools.islice(stream, count))
    return {name: np.stack([batch[name] for batch in found]) for name in found[0]}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def positions(tokens, source, index):
    """Where each placed image (n, 144) lies: (n, 2) rows and columns; checks that it is whole and the rest black."""
    canvases = PALETTE.decode(tokens)
    found = []
    for canvas, image in zip(canvases, source.images[index], strict=True):
        corner = np.argwhere(canvas[..., 0])[0]
        expected = np.zeros_like(canvas)
        expected[corner[0] : corner[0] + 8, corner[1] : corner[1] + 8] = image
        np.testing.assert_array_equal(canvas, expected)
        found.append(corner)
    return np.array(found)


def test_batches_have_the_promised_shapes_and_types(source):
    batch = next(batches(source, PALETTE, TRAIN, seed=0, batch_size=6, process_index=1, process_count=2))
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "tokens": ((3, 144), np.int32),
        "label": ((3,), np.int32),
        "index": ((3,), np.int32),
    }


def test_a_step_is_the_same_from_a_fresh_start_and_after_a_restart(source):
    whole = take(batches(source, PALETTE, TRAIN, seed=3, batch_size=4), 12)  # crosses four epochs
    assert_equal(whole, take(batches(source, PALETTE, TRAIN, seed=3, batch_size=4), 12))
    resumed = take(batches(source, PALETTE, TRAIN, seed=3, batch_size=4, start_step=7), 5)
    assert_equal({name: array[7:] for name, array in whole.items()}, resumed)


@pytest.mark.parametrize("count", [2, 8])
def test_the_processes_together_draw_the_one_process_batch(source, count):
    whole = take(batches(source, PALETTE, TRAIN, seed=3, batch_size=8, start_step=2), 5)
    streams = [
        batches(source, PALETTE, TRAIN, seed=3, batch_size=8, start_step=2, process_index=i, process_count=count)
        for i in range(count)
    ]
    parts = [take(stream, 5) for stream in streams]
    assert_equal(whole, {name: np.concatenate([part[name] for part in parts], axis=1) for name in whole})


def test_every_epoch_is_a_permutation_of_its_own(source):
    index = take(batches(source, PALETTE, TRAIN, seed=0, batch_size=4), 20)["index"].reshape(8, IMAGES)
    np.testing.assert_array_equal(np.sort(index, axis=1), np.arange(IMAGES)[None].repeat(8, axis=0))
    assert len({tuple(epoch) for epoch in index}) == 8


def test_every_image_comes_first_equally_often(source):
    index = next(batches(source, PALETTE, TRAIN, seed=0, batch_size=1000 * IMAGES))["index"].reshape(-1, IMAGES)
    assert scipy.stats.chisquare(np.bincount(index[:, 0], minlength=IMAGES)).pvalue > 1e-3


def test_seeds_differ_in_order_and_in_placement(source):
    first, second = (take(batches(source, PALETTE, TRAIN, seed=seed, batch_size=IMAGES), 1) for seed in (0, 1))
    assert np.any(first["index"] != second["index"])
    placed = [positions(found["tokens"][0], source, found["index"][0]) for found in (first, second)]
    ordered = [corner[np.argsort(found["index"][0])] for corner, found in zip(placed, (first, second), strict=True)]
    assert np.any(ordered[0] != ordered[1])


def test_labels_follow_their_images_which_stay_whole(source):
    batch = next(batches(source, PALETTE, TRAIN, seed=0, batch_size=32))
    np.testing.assert_array_equal(batch["label"], source.labels[batch["index"]])
    positions(batch["tokens"], source, batch["index"])


def test_placement_is_uniform_and_new_every_epoch(source):
    batch = next(batches(source, PALETTE, TRAIN, seed=0, batch_size=250 * IMAGES))
    corners = positions(batch["tokens"], source, batch["index"])
    counts = np.bincount(corners[:, 0] * 5 + corners[:, 1], minlength=25)
    assert len(counts) == 25
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert len({tuple(corner) for corner in corners[batch["index"] == 0]}) == 25


def test_examples_visit_each_image_once_in_order_and_always_alike(source):
    found = list(examples(source, PALETTE, TEST, batch_size=4))
    assert [len(batch["label"]) for batch in found] == [4, 4, 2]
    index = np.concatenate([batch["index"] for batch in found])
    tokens = np.concatenate([batch["tokens"] for batch in found])
    np.testing.assert_array_equal(index, np.arange(IMAGES))
    np.testing.assert_array_equal(np.concatenate([batch["label"] for batch in found]), source.labels)
    assert len({tuple(corner) for corner in positions(tokens, source, index)}) > 1
    (again,) = examples(source, PALETTE, TEST, batch_size=100)
    np.testing.assert_array_equal(again["tokens"], tokens)


def test_photographs_are_mirrored_half_of_the_time_in_training_only(source):
    batch = next(batches(source, PALETTE, FLIP, seed=0, batch_size=400))
    images, originals = PALETTE.decode(batch["tokens"]), source.images[batch["index"]]
    mirrored = np.all(images == originals[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(mirrored | np.all(images == originals, axis=(1, 2, 3)))
    assert 150 < mirrored.sum() < 250
    (plain,) = examples(source, PALETTE, IDENTITY, batch_size=IMAGES)
    np.testing.assert_array_equal(plain["tokens"], PALETTE.encode(source.images))


@pytest.mark.parametrize(("batch_size", "processes", "nearest"), [(10, 4, 8), (2, 4, 4), (11, 4, 12)])
def test_a_batch_that_cannot_be_shared_is_refused(source, batch_size, processes, nearest):
    with pytest.raises(InputError, match=rf"batch_size={batch_size} .* by {processes} processes; set {nearest}$"):
        batches(source, PALETTE, TRAIN, seed=0, batch_size=batch_size, process_count=processes)


def test_a_canvas_smaller_than_the_images_is_refused(source):
    small, _ = augmentations(DataConfig(name="digits"), 7)
    with pytest.raises(InputError, match=r"resolution=7 is smaller than the 8x8 images; set 8 or more"):
        batches(source, PALETTE, small, seed=0, batch_size=2)
