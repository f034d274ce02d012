import numpy as np
import pytest

from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError

GRAYS = Palette(np.linspace(-1, 1, 5)[:, None].repeat(3, axis=1))


def brute_force(pixels, colors):
    """Nearest colors of pixels (n, 3) uint8 by the definition."""
    differences = (pixels[:, None] / 127.5 - 1) - colors.astype(np.float64)
    red, green, blue = np.moveaxis(differences**2, -1, 0)
    return ((red + green) + blue).argmin(1)


def random_palette(size):
    return Palette(np.random.default_rng(size).uniform(-1, 1, (size, 3)))


def symmetric_palette():
    """Every corner of the cube twice: each pixel ties, and the middle planes tie four and eight ways."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * 2.0 - 1
    return Palette(np.concatenate([corners, corners]))


def test_images_painted_with_the_palette_survive_the_round_trip():
    levels = np.random.default_rng(0).choice(256**3, 64, replace=False)
    palette = Palette(np.stack([levels >> 16, levels >> 8 & 255, levels & 255], axis=1) / 127.5 - 1)
    tokens = np.random.default_rng(1).integers(0, 64, (3, 25))
    images = palette.decode(tokens)
    np.testing.assert_array_equal(palette.encode(images), tokens)
    np.testing.assert_array_equal(palette.decode(palette.encode(images)), images)


def test_tokens_run_in_raster_order():
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 1] = 255
    tokens = GRAYS.encode(image)
    assert tokens.tolist() == [[0, 4, 0, 0]]
    assert tokens.dtype == np.int32


def test_decode_rounds_to_the_nearest_level():
    assert GRAYS.decode(np.arange(4)[None])[0, :, :, 0].tolist() == [[0, 64], [128, 191]]


@pytest.mark.parametrize(
    "palette", [random_palette(512), random_palette(3), symmetric_palette(), Palette([[0.0, 0.0, 0.0]])], ids=len
)
def test_the_table_equals_brute_force(palette):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (10_000, 3), dtype=np.uint8)
    pixels[:3_000] = rng.integers(126, 130, (3_000, 3))  # about the planes where symmetric colors tie
    pixels[3_000:5_000] = rng.integers(0, 32, (2_000, 3)) * 8 + rng.choice([0, 7], (2_000, 3))  # corners of cells
    expected = brute_force(pixels, palette.colors)
    np.testing.assert_array_equal(palette.table[pixels.astype(int) @ (1, 1 << 8, 1 << 16)], expected)
    np.testing.assert_array_equal(palette.encode(pixels.reshape(1, 100, 100, 3)).reshape(-1), expected)


@pytest.mark.slow
def test_the_table_equals_brute_force_on_all_colors():
    palette = random_palette(512)
    for blue in range(256):
        green, red = np.divmod(np.arange(65536), 256)
        levels = np.stack([red, green, np.full_like(red, blue)], axis=1)
        found = palette.table[blue << 16 : (blue + 1) << 16]
        for part in np.split(np.arange(65536), 64):
            np.testing.assert_array_equal(found[part], brute_force(levels[part], palette.colors))


def test_a_table_is_kept_beside_the_palette_and_read_again(tmp_path):
    Palette(np.random.default_rng(3).uniform(-1, 1, (9, 3))).save(tmp_path / "palette.npy")
    palette = Palette.load(tmp_path / "palette.npy")
    cache = tmp_path / f"{palette.hash}.nearest.npy"
    expected = np.array(palette.table)
    np.testing.assert_array_equal(np.load(cache), expected)
    np.save(cache, expected[::-1])  # what is found there is used
    np.testing.assert_array_equal(Palette.load(tmp_path / "palette.npy").table, expected[::-1])
    cache.write_bytes(cache.read_bytes()[:1000])  # unless it is damaged
    np.testing.assert_array_equal(Palette.load(tmp_path / "palette.npy").table, expected)
    assert len(np.load(cache)) == 2**24


@pytest.mark.slow
def test_tokens_equal_those_of_transformers():
    from transformers import ImageGPTImageProcessorPil

    palette = random_palette(512)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    processor = ImageGPTImageProcessorPil(clusters=palette.colors, do_resize=False)
    np.testing.assert_array_equal(palette.encode(images), processor(list(images), return_tensors="np")["input_ids"])


def test_a_saved_palette_loads_equal_and_leaves_no_other_file(tmp_path):
    path = tmp_path / "palette.npy"
    palette = random_palette(7)
    GRAYS.save(path)
    palette.save(path)
    loaded = Palette.load(path)
    assert loaded == palette
    assert loaded != GRAYS
    assert loaded.hash == palette.hash
    assert len(loaded.hash) == 16
    assert [file.name for file in tmp_path.iterdir()] == ["palette.npy"]


def test_the_colors_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        GRAYS.colors[0] = 1


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        (np.zeros((4, 4)), r"shape \(4, 4\); expected \(v, 3\)"),
        (np.zeros((0, 3)), r"v in 1\.\.65536"),
        (np.zeros((65537, 3)), r"v in 1\.\.65536"),
        (np.full((2, 3), np.nan), "NaN or infinity"),
        (np.array([[0, 128, 255]]), r"span \[0, 255\].*pass colors / 127\.5 - 1"),
    ],
)
def test_colors_that_make_no_palette_are_refused(colors, message):
    with pytest.raises(InputError, match=message):
        Palette(colors)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 4, 4, 3), np.float32), "images are float32; expected uint8"),
        (np.zeros((4, 4, 3), np.uint8), r"expected \(b, r, r, 3\)"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"expected \(b, r, r, 3\)"),
        (np.zeros((1, 4, 4, 1), np.uint8), r"expected \(b, r, r, 3\)"),
    ],
)
def test_arrays_that_are_no_images_are_refused(images, message):
    with pytest.raises(InputError, match=message):
        GRAYS.encode(images)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.zeros((1, 8), np.int32), r"shape \(1, 8\); expected integers \(b, r\*r\)"),
        (np.zeros(9, np.int32), r"expected integers \(b, r\*r\)"),
        (np.zeros((1, 9)), "tokens are float64"),
        (np.full((1, 9), 5), r"span \[5, 5\]; expected \[0, 4\]"),
        (np.full((1, 9), -1), r"span \[-1, -1\]"),
    ],
)
def test_arrays_that_are_no_tokens_are_refused(tokens, message):
    with pytest.raises(InputError, match=message):
        GRAYS.decode(tokens)


def test_files_that_hold_no_palette_are_refused(tmp_path):
    path = tmp_path / "palette.npy"
    with pytest.raises(InputError, match="there is no palette at"):
        Palette.load(path)
    path.write_bytes(b"not an array")
    with pytest.raises(InputError, match="is not a palette"):
        Palette.load(path)
    np.save(path, np.zeros((5, 2)))
    with pytest.raises(InputError, match=r"palette\.npy is not a palette: .*shape \(5, 2\)"):
        Palette.load(path)
    GRAYS.save(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="is not a palette"):
        Palette.load(path)
