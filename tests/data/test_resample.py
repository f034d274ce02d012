import numpy as np
import pytest
from PIL import Image

from igpt_jax.data.resample import resample
from igpt_jax.data.tensorflow import tf

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 44, 3), dtype=np.uint8)


def resampled(image, box, resolution, kernel):
    return resample(image, tf.constant(box, tf.float32), resolution=resolution, kernel=kernel).numpy().astype(int)


@pytest.mark.parametrize(("box", "resolution"), [((0, 0, 60, 44), 8), ((12, 3, 40, 40), 7), ((5, 5, 12, 12), 30)])
def test_area_equals_the_mean_of_pixels_repeated_until_they_divide_evenly(box, resolution):
    top, left, height, width = box
    part = IMAGE[top : top + height, left : left + width].repeat(resolution, axis=0).repeat(resolution, axis=1)
    blocks = part.reshape(resolution, height, resolution, width, 3)
    assert np.abs(resampled(IMAGE, box, resolution, "area") - blocks.mean((1, 3))).max() <= 0.5 + 1e-4


def test_area_weighs_the_pixels_that_a_box_cuts_by_what_it_covers():
    ramp = np.arange(0, 240, 40, dtype=np.uint8)[None, :, None].repeat(6, axis=0).repeat(3, axis=2)
    fine = ramp.repeat(10, axis=0).repeat(10, axis=1)[7:47, 13:53]  # tenths of a pixel
    expected = fine.reshape(2, 20, 2, 20, 3).mean((1, 3))
    np.testing.assert_allclose(resampled(ramp, (0.7, 1.3, 4, 4), 2, "area"), expected, atol=0.5)


@pytest.mark.parametrize(("kernel", "pillow"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
@pytest.mark.parametrize(("box", "resolution"), [((0, 0, 60, 44), 8), ((10.3, 2.5, 41.5, 39.25), 16)])
def test_the_widened_kernels_are_pillows(kernel, pillow, box, resolution):
    top, left, height, width = box
    expected = Image.fromarray(IMAGE).resize((resolution,) * 2, pillow, box=(left, top, left + width, top + height))
    difference = np.abs(resampled(IMAGE, box, resolution, kernel) - np.asarray(expected))
    assert difference.max() <= 1  # Pillow rounds between its two passes
    assert difference.mean() < 0.2


@pytest.mark.parametrize("kernel", ["area", "bilinear", "bicubic"])
def test_an_image_of_the_right_size_is_left_alone(kernel):
    np.testing.assert_array_equal(resampled(IMAGE[:44], (0, 0, 44, 44), 44, kernel), IMAGE[:44])


@pytest.mark.parametrize("kernel", ["area", "bilinear", "bicubic"])
def test_one_row_of_pixels_becomes_its_columns(kernel):
    row = IMAGE[:1, :5]
    columns = resampled(row, (0, 0, 1, 5), 5, kernel)
    np.testing.assert_array_equal(columns, row.repeat(5, axis=0))
