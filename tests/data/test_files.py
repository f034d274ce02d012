"""Image files as people have them: any size and mode, some broken."""

import numpy as np
import pytest
from PIL import Image

import igpt_jax as ig
from igpt_jax.data.files import read_images, read_mask


def test_the_middle_square_is_averaged_down(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    names, images = read_images(tmp_path / "wide.png", 4)
    means = pixels[:, 4:16].reshape(4, 3, 4, 3, 3).astype(float).mean(axis=(1, 3))
    assert names == [str(tmp_path / "wide.png")]
    np.testing.assert_allclose(images[0], means, atol=1)


def test_a_folder_is_read_in_the_order_of_names_whatever_the_modes(tmp_path):
    for name, mode, color in (("b.png", "L", 7), ("a.jpg", "RGB", (9, 9, 9)), ("sub/c.png", "RGBA", (3, 3, 3, 255))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new(mode, (4, 4), color).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    names, images = read_images(tmp_path, 4)
    assert [name.rsplit("/", 1)[1] for name in names] == ["a.jpg", "b.png", "c.png"]
    assert images[:, 0, 0, 0].tolist() == [9, 7, 3]


def test_white_is_hidden(tmp_path):
    Image.fromarray(np.array([[255, 0], [127, 128]], np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 2).tolist() == [[True, False], [False, True]]


def test_what_cannot_work_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    Image.new("RGB", (8, 3)).save(tmp_path / "flat.png")
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("broken.png", "cannot be read as an image: .*; convert it to PNG, or take it away"),
        ("flat.png", "flat.png has 8x3 pixels; the model sees 4 a side; enlarge it"),
        ("empty", "holds no images; name a file, or a folder"),
        ("absent.png", "there is no file"),
    ):
        with pytest.raises(ig.InputError, match=message):
            read_images(tmp_path / path, 4)
    with pytest.raises(ig.InputError, match="has 8x3 pixels and the model 4x4; scale it to 4x4"):
        read_mask(tmp_path / "flat.png", 4)
