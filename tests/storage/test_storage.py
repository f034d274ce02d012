"""Paths in buckets: what is refused, and the tools that take the place of a file system."""

import contextlib
import os

import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.data.folder import open_folder
from igpt_jax.data.palette import Palette
from igpt_jax.data.prepared import open_split, prepare
from igpt_jax.data.token_files import open_tokens
from igpt_jax.data.token_shards import write_tokens
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.storage import Mirror, as_path, files, in_bucket, local_copy, mirrored, remove_directory
from tests.data.images import encode, photo

COLORS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)


def test_local_paths_stay_what_they_are(tmp_path):
    for text in ("runs/a", "/tmp/x", "a:b", "tokens", str(tmp_path)):
        assert str(as_path(text)) == text
        assert not in_bucket(as_path(text))
    assert local_copy(tmp_path) == tmp_path
    assert Mirror(tmp_path).path == tmp_path


@pytest.mark.parametrize("text", ["gs:/bucket/run", "gcs://bucket/run", "s3://bucket/run", "file:///tmp/run"])
def test_other_addresses_never_become_local_directories(text):
    with pytest.raises(InputError, match="only those like gs://BUCKET/PATH"):
        as_path(text)


def test_a_bucket_that_is_not_there_is_named(server):
    with pytest.raises(InputError, match="gs://nowhere cannot be used: there is no such bucket"):
        as_path("gs://nowhere/run")
    with pytest.raises(InputError, match="names no bucket"):
        as_path("gs:///run")


def test_a_write_that_fails_leaves_the_file_as_it_was(place):
    path = as_path(place) / "file.txt"
    with atomic_write(path) as partial:
        partial.write_text("old")
    with contextlib.suppress(KeyboardInterrupt), atomic_write(path) as partial:
        partial.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_a_mirror_starts_with_what_is_there_and_pushes_what_has_changed(place):
    directory = as_path(place)
    (directory / "old.txt").write_text("old")
    (directory / "other.txt").write_text("other")
    mirror = Mirror(directory, "old.txt", "missing.txt")
    assert {file.name for file in mirror.path.iterdir()} == {"old.txt"}
    with (mirror.path / "old.txt").open("a") as file:
        file.write(" and new")
    (mirror.path / "below").mkdir()
    (mirror.path / "below" / "deep.txt").write_text("deep")
    mirror.push()
    assert (directory / "old.txt").read_text() == "old and new"
    assert (directory / "below" / "deep.txt").read_text() == "deep"
    (directory / "old.txt").write_text("from elsewhere")
    mirror.push()  # nothing has changed here
    assert (directory / "old.txt").read_text() == "from elsewhere"


def test_a_copy_is_made_once_until_the_files_change(place):
    directory = as_path(place)
    (directory / "a.txt").write_text("one")
    (directory / "below" / "b.txt").write_text("two")
    first = local_copy(directory)
    assert (first / "a.txt").read_text() == "one"
    assert (first / "below" / "b.txt").read_text() == "two"
    assert local_copy(directory) == first
    assert local_copy(directory / "a.txt").read_text() == "one"
    (directory / "a.txt").write_text("three")
    assert (local_copy(directory) / "a.txt").read_text() == "three"
    with pytest.raises(InputError, match="there is nothing at"):
        local_copy(directory / "c.txt")


def test_a_prefix_is_copied_with_its_neighbors(place):
    directory = as_path(place)
    for name in ("model.ckpt-5.index", "model.ckpt-5.meta", "kmeans_centers.npy", "other.txt"):
        (directory / name).write_text(name)
    copy = local_copy(directory / "model.ckpt-5", "kmeans_centers.npy")
    assert {file.name for file in copy.parent.iterdir()} == {
        "model.ckpt-5.index",
        "model.ckpt-5.meta",
        "kmeans_centers.npy",
    }


def test_directories_are_removed_whole(place):
    directory = as_path(place)
    remove_directory(directory)  # not there yet
    for i in range(3):
        (directory / "below" / str(i)).write_text("x")
    remove_directory(directory)
    assert not directory.exists()


def test_pictures_of_a_directory_arrive_when_they_are_drawn(place):
    with mirrored(as_path(place)) as local:
        (local / "picture.png").write_bytes(b"png")
        assert not as_path(place).exists()
    assert (as_path(place) / "picture.png").read_bytes() == b"png"


def test_a_palette_goes_there_and_back(place):
    Palette(COLORS).save(f"{place}/palette.npy")
    palette = Palette.load(f"{place}/palette.npy")
    assert palette == Palette(COLORS)
    assert (palette.encode(np.zeros((1, 2, 2, 3), np.uint8)) == palette.encode(np.zeros((1, 2, 2, 3), np.uint8))).all()
    assert [file.name for file in as_path(place).iterdir()] == ["palette.npy"]  # no table of all colors beside it
    with pytest.raises(InputError, match="there is no palette at"):
        Palette.load(f"{place}/other.npy")


def test_tokens_are_written_and_read_as_on_disk(place, tmp_path):
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, 8, (20, 16)), rng.integers(0, 3, 20).astype(np.int32)
    facts = {"source": "test", "resolution": 4, "classes": 3, "fold_validation": True}

    def stream(start):
        yield {"tokens": tokens[start:], "label": labels[start:]}

    for directory in (as_path(place), tmp_path / "tokens"):
        write_tokens(directory, Palette(COLORS), facts, {"train": (20, stream), "test": (20, stream)})
    for name in ("manifest.json", "train-00000.npy", "train-00000.labels.npy", "palette.npy"):
        assert (as_path(place) / name).read_bytes() == (tmp_path / "tokens" / name).read_bytes()
    assert {file.name for file in as_path(place).iterdir()} == {
        file.name for file in (tmp_path / "tokens").iterdir() if not file.name.endswith(".nearest.npy")
    }
    source = open_tokens(place, "train")
    assert (source.read(np.arange(20)) == tokens).all()
    assert (source.labels == labels).all()
    with pytest.raises(InputError, match="holds tokens already"):
        write_tokens(as_path(place), Palette(COLORS), facts, {"train": (20, stream), "test": (20, stream)})


def test_a_folder_of_images_is_the_folder_on_disk(place, tmp_path):
    for number, name in enumerate(("b/1.png", "a/2.png", "a/.hidden.png", ".git/3.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(photo(9, 8 + number), "PNG"))
        (as_path(place) / name).write_bytes((tmp_path / name).read_bytes())
    there, here = open_folder(as_path(place)), open_folder(tmp_path)
    assert there.classes == here.classes == 2
    assert [there.name(row) for row in there.rows] == [f"{place}/a/2.png", f"{place}/b/1.png"]
    for row in here.rows:
        (bytes_there, label_there), (bytes_here, label_here) = (
            source.parse(row, source.read(np.array([row]))[0]) for source in (there, here)
        )
        assert bytes_there.numpy() == bytes_here.numpy()
        assert label_there == label_here
    images, labels = ig.load_images(f"folder:{place}", resolution=8)
    assert len(images) == len(labels) >= 1


def test_a_data_set_is_prepared_in_the_bucket_once(place):
    builder = prepare("digits", place)
    held = as_path(place) / "digits"
    assert held.is_dir()
    before = files().find(str(held), detail=True)
    assert len(open_split(prepare("digits", place), "train")) == builder.info.splits["train"].num_examples
    assert files().find(str(held), detail=True) == before


def test_scratch_is_where_the_environment_says(server, place):
    (as_path(place) / "a.txt").write_text("one")
    assert str(local_copy(as_path(place))).startswith(os.environ["IGPT_JAX_SCRATCH"])
