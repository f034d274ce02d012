import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from igpt_jax.data import decode
from igpt_jax.data.resample import resample
from igpt_jax.data.tensorflow import tf
from tests.data.images import BROKEN, GOOD, encode, photo


@tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((), tf.string)])
def upright(image, encoded):
    return decode.upright(image, encoded)


@tf.function(input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((4,))])
def decoded(encoded, box):
    return decode.size(encoded), *decode.decode_box(encoded, box, resolution=32)


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_image_decodes_as_pillow_does(name):
    expected = np.asarray(Image.open(io.BytesIO(GOOD[name])).convert("RGB"))
    height, width, _ = expected.shape
    size, image, box = decoded(GOOD[name], (0.0, 0.0, height, width))
    assert size.numpy().tolist() == [height, width]
    assert box.numpy().tolist() == [0, 0, height, width]
    tolerance = {"cmyk.jpg": 3, "gray.jpg": 1}.get(name, 0)  # the two convert these to RGB in different ways
    assert np.abs(image.numpy().astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_image_fails_in_the_graph_and_is_diagnosed(name):
    with pytest.raises(tf.errors.OpError):
        decoded(BROKEN[name], (0.0, 0.0, 80.0, 120.0))
    diagnosis = decode.diagnose(BROKEN[name], 10**6)
    if name in ("truncated.jpg", "truncated.png"):
        assert diagnosis == "it is truncated or damaged"
    else:
        assert diagnosis == ("it cannot be read" if name == "empty.jpg" else "it is not a whole JPEG, PNG or WebP")


@pytest.mark.parametrize("name", ["photo.jpg", "alpha.png", "lossy.webp"])
def test_a_header_that_says_too_much_is_diagnosed(name):
    assert decode.diagnose(GOOD[name], 9599) == "its header says 120x80 pixels, and data.max_pixels=9599"


def test_only_the_window_about_the_box_is_decoded_and_it_is_the_same():
    encoded = GOOD["photo.jpg"]
    whole = np.asarray(Image.open(io.BytesIO(encoded)))
    _, image, box = decoded(encoded, (10.5, 20.25, 40.0, 41.0))
    np.testing.assert_allclose(box, [2.5, 2.25, 40, 41])
    np.testing.assert_array_equal(image[2:43, 2:44], whole[10:51, 20:62])
    assert image.shape == (45, 46, 3)


@pytest.mark.parametrize(("side", "scale"), [(191, 1), (192, 2), (383, 2), (384, 4), (767, 4), (768, 8)])
def test_the_scale_falls_as_long_as_three_times_the_resolution_remain(side, scale):
    encoded = encode(photo(side, side), "JPEG")
    _, image, box = decoded(encoded, (0.0, 0.0, side, side))
    assert image.shape[:2] == (-(-side // scale),) * 2
    np.testing.assert_allclose(box, [0, 0, side / scale, side / scale])


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("box", [(10.3, 20.7, 230.0, 230.0), (100.0, 200.0, 300.0, 300.0), (0.0, 0.0, 400.0, 400.0)])
def test_reduced_decoding_changes_a_level_by_about_one_at_most_on_average(number, box):
    encoded = encode(photo(640, 427, number), "JPEG", quality=92)
    whole = np.asarray(Image.open(io.BytesIO(encoded)))
    exact = resample(whole, tf.constant(box), resolution=32, kernel="area").numpy().astype(int)
    _, image, reduced_box = decoded(encoded, box)
    assert image.shape[0] < box[2] / 2 + 6
    difference = np.abs(resample(image, reduced_box, resolution=32, kernel="area").numpy() - exact)
    assert difference.mean() < 1.1
    assert difference.max() < 24


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_exif_orientations_turn_and_mirror_as_pillow_does(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = encode(photo(16, 16), kind, exif=exif)
    image = Image.open(io.BytesIO(encoded))
    expected = ImageOps.exif_transpose(image) if orientation < 9 else image
    found = upright(np.asarray(image.convert("RGB")), encoded)
    np.testing.assert_array_equal(found, np.asarray(expected.convert("RGB")))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"", b"Exif\x00\x00", b"Exif\x00\x00MM\x00*damaged", b"Exif\x00\x00no TIFF at all"])
def test_damaged_exif_data_turn_nothing(exif):
    encoded = encode(photo(16, 16), "JPEG", exif=exif)
    image = np.asarray(Image.open(io.BytesIO(encoded)))
    np.testing.assert_array_equal(upright(image, encoded), image)
