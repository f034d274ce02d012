"""The palette command, on sources of every kind."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import igpt_jax as ig
from igpt_jax.__main__ import main
from igpt_jax.config import DataConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.colors import count_colors
from igpt_jax.data.sources import load_source


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


def test_a_palette_and_its_picture_from_a_source_by_name(tmp_path, capsys):
    out = tmp_path / "colors" / "photos.npy"
    assert (
        igpt("palette", "--source=photographs", "--size=24", "--pixels=20000", "--resolution=32", f"--out={out}") == 0
    )
    palette = ig.Palette.load(out)
    assert len(palette) == 24
    words = capsys.readouterr().out
    assert words.startswith(f"{out}: 24 colors for 20,032 pixels, mean squared error ")
    assert palette.hash in words
    with Image.open(out.with_suffix(".png")) as picture:
        assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 24
    assert sorted(path.name for path in out.parent.iterdir()) == [
        f"{palette.hash}.nearest.npy",
        "photos.npy",
        "photos.png",
    ]


def test_gray_images_get_gray_colors_and_too_few_are_refused_with_their_number(tmp_path, capsys):
    out = tmp_path / "gray.npy"
    arguments = ["palette", "--source=digits", "--resolution=12", f"--out={out}"]
    assert igpt(*arguments, "--size=17") == 0
    np.testing.assert_allclose(
        ig.Palette.load(out).colors[:, 1], np.rint(np.arange(17) * 255 / 16) / 127.5 - 1, atol=1e-6
    )
    assert igpt(*arguments, "--size=18") == 2
    assert "cannot fit 18 colors to pixels of 17 distinct colors" in capsys.readouterr().err


def test_all_pixels_are_counted_once_where_there_are_no_more():
    config = DataConfig(name="digits", fold_validation=True)
    colors, counts = count_colors(load_source(config, "train"), augmentations(config, 12)[1], pixels=10**9)
    assert counts.sum() == 1437 * 144
    assert len(colors) == 17
    digits = load_digits()
    white = (digits.images == 16).sum()
    assert 0.7 * white < counts[np.flatnonzero((colors == 255).all(1))[0]] < 0.9 * white  # four fifths train


def test_a_sample_is_spread_over_the_images():
    config = DataConfig(name="photographs")
    _, counts = count_colors(load_source(config, "train"), augmentations(config, 32)[1], pixels=100_000, seed=1)
    assert counts.sum() == 64 * 1563  # of 4,096 images


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["palette"], "--source=None names no images; give digits"),
        (["tokens", "--source=tokens:x", "--palette=p.npy", "--out=x"], "--source=tokens:x names no images"),
        (["palette", "--source=photographs", "--size=1"], "--size=1 must lie in 2 to 65536"),
        (["palette", "--source=photographs", "--out=palette.txt"], "must end in .npy"),
        (["palette", "--source=photographs", "--filter=box"], "data.filter='box' is not known"),
        (["tokens", "--source=photographs", "--out=x"], "--palette=PATH is missing"),
        (["tokens", "--source=photographs", "--palette=none.npy", "--out=x"], "no palette at none.npy"),
    ],
)
def test_flags_that_cannot_work_are_refused_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert igpt(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
