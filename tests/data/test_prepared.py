"""TFDS's own builders, fed with small archives in the real formats, prepared to array_record, and read to tokens.

Only the network's edge is replaced: the archive lies where a person who downloaded it would put it, and its checksum
is the one that TFDS expects.
"""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from igpt_jax.config import DataConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.builders import Digits
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import batches, examples, originals
from igpt_jax.data.prepared import open_split, prepare
from igpt_jax.data.records import FileSource, MemorySource
from igpt_jax.data.sources import load_source
from igpt_jax.errors import InputError
from tests.data import archives

PALETTE = Palette(np.random.default_rng(0).uniform(-1, 1, (40, 3)))
SETS = {  # name: (side, images, classes, URL)
    "cifar10": (32, 120, 10, "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"),
    "cifar100": (32, 120, 100, "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"),
    "stl10": (96, 30, 10, "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz"),
}


@pytest.fixture(scope="module", params=SETS)
def small(request, tmp_path_factory):
    """A prepared set: its name, directory, images and labels, the training ones first."""
    name = request.param
    side, count, classes, url = SETS[name]
    directory = tmp_path_factory.mktemp(name)
    manual = directory / "downloads" / "manual"
    manual.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8), rng.integers(0, classes, count)
    archive = manual / url.rsplit("/", 1)[1]
    archives.stl10(archive, images, labels) if name == "stl10" else archives.cifar(archive, classes, images, labels)
    with pytest.MonkeyPatch.context() as patch:
        expected = tfds.core.download.checksums.compute_url_info(archive)
        patch.setattr(tfds.builder_cls(name), "url_infos", {url: expected})
        prepare(name, str(directory))
    return name, directory, images, labels


def sorted_by_pixels(images, labels):
    order = sorted(range(len(images)), key=lambda i: images[i].tobytes())
    return images[order], np.asarray(labels)[order]


def test_a_set_arrives_whole_with_its_classes_and_its_labels(small):
    name, directory, images, labels = small
    trained = len(images) * 5 // 6 if name != "stl10" else len(images) * 2 // 3
    train, test = (
        load_source(DataConfig(name=name, directory=str(directory), fold_validation=True), s) for s in ("train", "test")
    )
    assert isinstance(train, MemorySource)
    assert train.classes == SETS[name][2]
    for source, part in ((train, slice(0, trained)), (test, slice(trained, None))):
        for found, expected in zip(
            sorted_by_pixels(source.images, source.labels), sorted_by_pixels(images[part], labels[part]), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


def test_a_tenth_is_held_out_by_a_permutation_that_stays(small):
    name, directory, *_ = small
    config = DataConfig(name=name, directory=str(directory))
    train, held_out, again = (load_source(config, split) for split in ("train", "validation", "validation"))
    assert len(held_out) == round((len(train) + len(held_out)) / 10)
    np.testing.assert_array_equal(held_out.images, again.images)
    assert not {image.tobytes() for image in held_out.images} & {image.tobytes() for image in train.images}


def test_a_set_reads_through_the_pipeline_to_tokens_at_32(small):
    name, directory, *_ = small
    config = DataConfig(name=name, directory=str(directory))
    source = load_source(config, "train")
    training, evaluation = augmentations(config, 32)
    batch = next(batches(source, PALETTE, training, seed=0, batch_size=6))
    images = source.images[batch["index"]]
    if name == "stl10":  # three by three pixels to one
        images = np.floor(images.reshape(6, 32, 3, 32, 3, 3).mean((2, 4)) + 0.5).astype(np.uint8)
    np.testing.assert_array_equal(batch["tokens"], PALETTE.encode(images))
    np.testing.assert_array_equal(batch["label"], source.labels[batch["index"]])
    assert sum(len(found["index"]) for found in examples(source, PALETTE, evaluation, batch_size=7)) == len(source)


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    directory = tmp_path_factory.mktemp("imagenet")
    (directory / "downloads" / "manual").mkdir(parents=True)
    archives.imagenet(directory / "downloads" / "manual", each=16)
    prepare("imagenet2012", str(directory))
    return DataConfig(name="imagenet2012", directory=str(directory))


def test_imagenet_stays_on_disk_and_its_public_validation_images_are_the_test_split(imagenet):
    train, held_out, test = (load_source(imagenet, split) for split in ("train", "validation", "test"))
    assert all(isinstance(source, FileSource) for source in (train, held_out, test))
    assert train.classes == 1000
    assert (len(train), len(held_out), len(test)) == (47, 2, 4)  # 4 % of 49
    assert not set(train.rows) & set(held_out.rows)


def test_imagenet_reads_through_random_crops_to_tokens(imagenet):
    source = load_source(imagenet, "train")
    crop, central = augmentations(imagenet, 32)
    whole = [batch for batch, _ in zip(batches(source, PALETTE, crop, seed=3, batch_size=24), range(4), strict=False)]
    resumed = next(batches(source, PALETTE, crop, seed=3, batch_size=24, start_step=3))
    for name, array in resumed.items():
        np.testing.assert_array_equal(array, whole[3][name])
    assert {int(label) for batch in whole for label in batch["label"]} == {0, 1, 999}
    pictures = {
        int(i): image
        for batch in originals(source, central, batch_size=9)
        for i, image in zip(batch["index"], batch["image"], strict=True)
    }
    for batch in examples(source, PALETTE, central, batch_size=50):
        np.testing.assert_array_equal(batch["tokens"], PALETTE.encode(np.stack([pictures[i] for i in batch["index"]])))


def test_a_damaged_record_is_named_by_its_set_split_and_number(imagenet, tmp_path):
    import shutil

    shutil.copytree(imagenet.directory, tmp_path / "copy")
    (file,) = (tmp_path / "copy").rglob("imagenet2012-train.array_record*")
    content = bytearray(file.read_bytes())
    start = content.index(b"\xff\xd8\xff", len(content) // 2)
    content[start + 200 : start + 300] = bytes(100)
    file.write_bytes(content)
    config = DataConfig(name="imagenet2012", directory=str(tmp_path / "copy"), fold_validation=True)
    source = load_source(config, "train")
    _, central = augmentations(config, 8)
    with pytest.raises(InputError, match=r"imagenet2012/5\.1\.0, split train, record \d+ \(image \d+\): it "):
        list(examples(source, PALETTE, central, batch_size=8))
    found = list(examples(source, PALETTE, central, batch_size=8, max_skipped=3))
    assert sum(len(batch["index"]) for batch in found) == len(source)


def test_imagenet_that_was_never_downloaded_is_refused_with_its_instructions(tmp_path):
    with pytest.raises(InputError, match=r"(?s)cannot prepare imagenet2012 .*ILSVRC2012_img_train\.tar"):
        load_source(DataConfig(name="imagenet2012", directory=str(tmp_path)), "train")


def test_a_set_prepared_as_tfrecord_is_refused_with_the_command_that_prepares_it(tmp_path, capfd):
    Digits(data_dir=tmp_path).download_and_prepare()
    with pytest.raises(
        InputError, match=r"prepared as tfrecord.*tfds\.builder\('digits', data_dir='NEW', file_format='array_record'\)"
    ):
        prepare("digits", str(tmp_path))


class Texts(tfds.core.GeneratorBasedBuilder):
    """A set without images."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

    def _split_generators(self, dl_manager):
        return {"train": [(0, {"text": "word"})]}

    def _generate_examples(self):
        return []


def test_a_set_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no uint8 image among text"):
        open_split(Texts(data_dir=tmp_path, file_format="array_record"), "train")
