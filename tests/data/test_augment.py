import numpy as np
import pytest
import scipy.stats

from igpt_jax.config import DataConfig
from igpt_jax.data.augment import augmentations, central_square, pad_crop_flip, random_crop
from igpt_jax.data.tensorflow import tf
from igpt_jax.errors import InputError
from tests.data.images import GOOD

DRAWS = 4000


def drawn(function):
    """What a function of a seed gives for many seeds, stacked."""
    seeds = np.stack([np.zeros(DRAWS, np.int64), np.arange(DRAWS)], axis=1)
    return np.stack(list(tf.data.Dataset.from_tensor_slices(seeds).map(function).as_numpy_iterator()))


def uniform(draws, count):
    assert draws.min() >= 0
    counts = np.bincount(draws, minlength=count)
    return len(counts) == count and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_random_crops_follow_the_papers_distribution():
    height, width = 300, 600
    top, left, box_height, box_width = drawn(lambda seed: random_crop(tf.constant([height, width]), seed)).T
    shorter = np.rint(224 * height / box_height).astype(int)
    assert uniform(shorter - 256, 129)
    np.testing.assert_allclose(box_width * (2 * shorter), 224 * width, rtol=1e-5)  # the ratio of the sides stays
    rows, columns = np.rint(top * shorter / height).astype(int), np.rint(left * shorter / height).astype(int)
    np.testing.assert_allclose(rows * height / shorter, top, atol=1e-3)  # a whole number of resized pixels
    assert scipy.stats.kstest((rows + 0.5) / (shorter - 224 + 1), "uniform").pvalue > 1e-3
    assert scipy.stats.kstest((columns + 0.5) / (2 * shorter - 224 + 1), "uniform").pvalue > 1e-3
    assert np.all(top + box_height <= height + 1e-3)
    assert np.all(left + box_width <= width + 1e-3)
    assert columns.max() > 384  # crops reach the far side
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.6  # both grow with the shorter side, and are otherwise independent


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (2000, 3), (224, 224)])
def test_random_crops_of_every_shape_lie_inside(size):
    boxes = drawn(lambda seed: random_crop(tf.constant(size), seed))
    assert np.all(boxes[:, :2] >= 0)
    assert np.all(boxes[:, 2:] > 0)
    assert np.all(boxes[:, :2] + boxes[:, 2:] <= np.array(size) * (1 + 1e-5))


def test_evaluation_takes_the_central_square():
    assert central_square(tf.constant([80, 121]), None).numpy().tolist() == [0, 20.5, 80, 80]
    assert central_square(tf.constant([9, 4]), None).numpy().tolist() == [2.5, 0, 4, 4]


def test_padded_crops_are_all_of_the_reflected_image_and_half_are_mirrored():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    crops = {padded[i : i + 32, j : j + 32].tobytes(): 9 * i + j for i in range(9) for j in range(9)}
    found = drawn(lambda seed: tf.cast(pad_crop_flip(tf.constant(image), seed, 32), tf.float32)).astype(np.uint8)
    mirrored = np.array([crop.tobytes() not in crops for crop in found])
    place = np.array(
        [
            crops[np.ascontiguousarray(crop[:, ::-1] if m else crop).tobytes()]
            for crop, m in zip(found, mirrored, strict=True)
        ]
    )
    assert uniform(place, 81)
    assert scipy.stats.binomtest(int(mirrored.sum()), DRAWS).pvalue > 1e-3


def test_encoded_and_decoded_images_give_the_same_pixels():
    encoded = GOOD["lossless.webp"]
    pixels = tf.io.decode_image(GOOD["alpha.png"], channels=3)
    for augmentation in augmentations(DataConfig(name="folder:x"), 24):
        seed = tf.constant([1, 2])
        np.testing.assert_array_equal(augmentation.of_encoded(encoded, seed), augmentation.of_pixels(pixels, seed))


def test_images_of_the_models_own_side_are_cropped_for_training_and_whole_for_evaluation():
    pixels = tf.constant(np.random.default_rng(0).integers(0, 256, (16, 16, 3)), tf.uint8)
    training, evaluation = augmentations(DataConfig(name="svhn_cropped"), 16)
    crops = {training.of_pixels(pixels, tf.constant([0, i])).numpy().tobytes() for i in range(8)}
    assert len(crops) == 8
    np.testing.assert_array_equal(evaluation.of_pixels(pixels, tf.constant([0, 0])), pixels)


@pytest.mark.parametrize(
    ("name", "trained", "evaluated"),
    [
        ("imagenet2012", "random_crop", "central_square"),
        ("cifar10", "central_square", "central_square"),
        ("stl10", "central_square", "central_square"),
    ],
)
def test_sources_get_what_the_paper_does_to_them(name, trained, evaluated):
    training, evaluation = augmentations(DataConfig(name=name), 32)
    assert (training.box.__name__, evaluation.box.__name__) == (trained, evaluated)
    assert training.finish is None
    assert evaluation.finish is None


def test_images_that_are_too_large_are_refused_before_decoding():
    _, evaluation = augmentations(DataConfig(name="folder:x", max_pixels=80 * 120 - 1), 8)
    claim = bytearray(GOOD["alpha.png"])
    claim[16:24] = b"\x00\x00\xff\xff" * 2  # a header of 65535x65535 pixels
    for encoded in (GOOD["photo.jpg"], bytes(claim)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            evaluation.of_encoded(encoded, tf.constant([0, 0]))


def test_a_canvas_is_only_for_images_of_one_size():
    training, _ = augmentations(DataConfig(name="folder:x", augmentation="place"), 8)
    with pytest.raises(InputError, match="place is for images of one small size"):
        training.of_encoded(tf.constant(b""), tf.constant([0, 0]))
