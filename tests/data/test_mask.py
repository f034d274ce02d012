import numpy as np
import pytest
from PIL import Image

import igpt_jax as ig
from igpt_jax.data.mask import read_mask


def test_white_is_hidden(tmp_path):
    Image.fromarray(np.array([[255, 0], [127, 128]], np.uint8)).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png", 2).tolist() == [[True, False], [False, True]]


def test_what_cannot_work_is_refused_with_a_remedy(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    Image.new("RGB", (8, 3)).save(tmp_path / "flat.png")
    for path, message in (
        ("broken.png", "cannot be read as an image: .*; convert it to PNG"),
        ("flat.png", "has 8x3 pixels and the model 4x4; scale it to 4x4"),
        ("absent.png", r"there is no file .*absent\.png; name a PNG, white where"),
    ):
        with pytest.raises(ig.InputError, match=message):
            read_mask(tmp_path / path, 4)
