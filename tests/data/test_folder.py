import itertools

import numpy as np
import pytest
from PIL import Image

from igpt_jax.config import DataConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.folder import open_folder, open_images
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import batches, examples, originals
from igpt_jax.data.sources import load_source
from igpt_jax.errors import InputError
from tests.data.images import BROKEN, GOOD, encode, photo

PALETTE = Palette(np.random.default_rng(0).uniform(-1, 1, (40, 3)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind of good image, in two classes, among files that are none of our business."""
    root = tmp_path_factory.mktemp("images")
    for i, (name, encoded) in enumerate(GOOD.items()):
        path = root / ("cat", "dog")[i % 2] / "deep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.jpg").write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def holed(tmp_path_factory):
    """Thirty images of which seven are broken, two of them next to each other in the order of the paths."""
    root = tmp_path_factory.mktemp("holed")
    for i in range(23):
        (root / f"{i:02d}.png").write_bytes(encode(photo(12 + i, 12), "PNG"))
    for i, (name, encoded) in enumerate(BROKEN.items()):
        (root / f"{3 * i + i % 2:02d}x{name}").write_bytes(encoded)
    return root


def config(root, **options):
    return DataConfig(name=f"folder:{root}", **options)


def take(stream, count):
    found = list(itertools.islice(stream, count))
    return {name: np.stack([batch[name] for batch in found]) for name in found[0]}


def test_a_folder_reads_through_to_tokens_of_its_own_pixels(folder):
    source = load_source(config(folder, fold_validation=True), "train")
    _, central = augmentations(config(folder), 16)
    tokens = np.concatenate([batch["tokens"] for batch in examples(source, PALETTE, central, batch_size=5)])
    pictures = np.concatenate([batch["image"] for batch in originals(source, central, batch_size=5)])
    np.testing.assert_array_equal(tokens, PALETTE.encode(pictures))
    assert pictures.std(axis=(1, 2)).mean() > 20  # photographs, not constants


def test_sub_folders_are_classes_and_the_splits_share_out_all_files(folder):
    found = [load_source(config(folder), split) for split in ("train", "validation", "test")]
    assert [source.classes for source in found] == [2, 2, 2]
    names = [source.name(row) for source in found for row in source.rows]
    assert sorted(names) == sorted(str(path) for path in folder.rglob("*/deep/*"))
    assert len(found[1]) == len(found[2]) == round(0.1 * len(GOOD))
    _, central = augmentations(config(folder), 4)
    for batch in examples(found[0], PALETTE, central, batch_size=50):
        expected = [int("dog" in found[0].name(found[0].rows[index])) for index in batch["index"]]
        assert batch["label"].tolist() == expected


def test_train_and_test_folders_are_the_splits(tmp_path):
    for split, count in (("train", 20), ("val", 3)):
        (tmp_path / split).mkdir()
        for i in range(count):
            (tmp_path / split / f"{i}.png").write_bytes(GOOD["row.png"])
    sizes = [len(load_source(config(tmp_path), split)) for split in ("train", "validation", "test")]
    assert sizes == [18, 2, 3]
    assert load_source(config(tmp_path), "train").classes == 0


def test_the_classes_of_the_training_folder_are_those_of_the_test_folder(tmp_path):
    def add(*names):
        for name in names:
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "1.png").write_bytes(GOOD["alpha.png"])

    add("train/cat", "train/dog", "train/fox", "test/dog", "test/fox")
    train, test = (load_source(config(tmp_path, fold_validation=True), split) for split in ("train", "test"))
    _, central = augmentations(config(tmp_path), 4)
    labels = [next(examples(source, PALETTE, central, batch_size=9))["label"].tolist() for source in (train, test)]
    assert labels == [[0, 1, 2], [1, 2]]
    assert train.classes == test.classes == 3
    add("test/cow")
    with pytest.raises(InputError, match=r"test has the class cow, which .*train lacks; name the sub-folders alike"):
        load_source(config(tmp_path), "test")


def test_folders_behind_links_count_once(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1.png").write_bytes(GOOD["alpha.png"])
    (tmp_path / "images").mkdir()
    for name, target in (("a", "elsewhere"), ("back", "images")):
        (tmp_path / "images" / name).symlink_to(tmp_path / target)
    (path,) = open_folder(tmp_path / "images").rows
    assert open_folder(tmp_path / "images").name(path) == str(tmp_path / "images" / "a" / "1.png")


def test_photographs_come_upright_from_a_folder_and_as_stored_from_a_data_set(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # held upright, stored lying
    stored = photo(16, 16)
    (tmp_path / "phone.png").write_bytes(encode(stored, "PNG", exif=exif))
    source = open_images(tmp_path, 16)
    for name, expected in ((f"folder:{tmp_path}", stored.rotate(-90)), ("imagenet2012", stored)):
        _, central = augmentations(DataConfig(name=name), 16)
        (batch,) = originals(source, central, batch_size=1)
        np.testing.assert_array_equal(batch["image"][0], np.asarray(expected))


def test_a_file_or_a_folder_of_images_to_look_at(folder, tmp_path):
    paths = sorted(str(path) for path in folder.rglob("*/deep/*"))
    source = open_images(folder, 1)
    assert [source.name(row) for row in source.rows] == paths
    assert (source.classes, len(open_images(folder / "cat" / "deep" / "photo.jpg", 80))) == (0, 1)
    for path, resolution, message in (
        (folder / "cat" / "deep" / "photo.jpg", 81, r"photo\.jpg has 120x80 pixels; the model sees 81 a side; enlarge"),
        (tmp_path, 1, "holds no image; expected files that end in"),
        (tmp_path / "absent.png", 1, r"there is no file .*absent\.png; name an image or a folder"),
    ):
        with pytest.raises(InputError, match=message):
            open_images(path, resolution)


def test_random_crops_are_the_same_on_two_processes_and_after_a_restart(folder):
    source = load_source(config(folder), "train")
    crop, _ = augmentations(config(folder), 8)
    whole = take(batches(source, PALETTE, crop, seed=5, batch_size=8), 6)  # crosses three epochs
    parts = [
        take(batches(source, PALETTE, crop, seed=5, batch_size=8, start_step=2, process_index=i, process_count=2), 4)
        for i in range(2)
    ]
    for name, array in whole.items():
        np.testing.assert_array_equal(array[2:], np.concatenate([part[name] for part in parts], axis=1))
    epochs = whole["index"].reshape(-1)
    assert sorted(epochs[: len(source)]) == list(range(len(source)))
    first, second = (epochs[: len(source)].tolist().index(0), epochs[len(source) : 2 * len(source)].tolist().index(0))
    tokens = whole["tokens"].reshape(-1, 64)
    assert np.any(tokens[first] != tokens[len(source) + second])  # another crop in another epoch


def test_a_broken_image_is_named_with_the_reason(holed):
    source = load_source(config(holed, fold_validation=True), "train")
    _, central = augmentations(config(holed), 8)
    with pytest.raises(InputError, match=r"\d\dx\w+\.\w+ \(image \d+\): it (is|cannot) .*set on_error=skip"):
        list(examples(source, PALETTE, central, batch_size=4))


def test_skipped_images_are_replaced_by_the_next_of_the_epoch_on_any_number_of_processes(holed, capfd):
    source = load_source(config(holed, fold_validation=True), "train")
    _, central = augmentations(config(holed), 8)
    broken = {i for i, row in enumerate(source.rows) if "x" in source.name(row).rsplit("/", 1)[-1]}
    assert len(broken) > 3

    def stream(epochs, count=1, index=0):
        """Batches of so many epochs."""
        options = {"seed": 1, "batch_size": epochs * len(source), "process_count": count, "process_index": index}
        return batches(source, PALETTE, central, max_skipped=10, **options)

    whole = take(stream(1), 2)
    assert not broken & set(whole["index"].reshape(-1).tolist())
    complaints = capfd.readouterr().err.splitlines()
    assert len([line for line in complaints if line.startswith("skipped")]) == len(broken)
    for epoch in whole["index"]:
        kept, repeated = np.unique(epoch, return_counts=True)
        assert set(kept.tolist()) == set(range(len(source))) - broken
        assert (repeated - 1).sum() == len(broken)
        assert (epoch == np.roll(epoch, -1)).sum() == len(broken)  # each repeats the one after it
    halves = [take(stream(2, 2, i), 1)["tokens"][0] for i in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves), np.concatenate(whole["tokens"]))


def test_more_broken_images_than_are_tolerated_end_the_run(holed):
    source = load_source(config(holed, fold_validation=True), "train")
    _, central = augmentations(config(holed), 8)
    with pytest.raises(InputError, match=r"3 images cannot be decoded, and data\.max_skipped=2"):
        list(examples(source, PALETTE, central, batch_size=4, max_skipped=2))


def test_a_folder_of_nothing_but_broken_images_ends_too(tmp_path):
    for i in range(20):
        (tmp_path / f"{i}.jpg").write_bytes(BROKEN["truncated.jpg"])
    source = load_source(config(tmp_path), "train")
    _, central = augmentations(config(tmp_path), 8)
    with pytest.raises(InputError, match="15 in a row"):
        list(examples(source, PALETTE, central, batch_size=4, max_skipped=10**6))


def test_folders_without_images_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        load_source(config(tmp_path / "nowhere"), "train")
    with pytest.raises(InputError, match=r"holds no image; expected files that end in \.jpg"):
        load_source(config(tmp_path), "train")
    (tmp_path / "one.jpg").write_bytes(GOOD["photo.jpg"])
    with pytest.raises(InputError, match=r"1 images .* leaves none for test"):
        load_source(config(tmp_path), "test")
