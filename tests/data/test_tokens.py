import json

import numpy as np
import pytest

from igpt_jax.__main__ import main
from igpt_jax.config import DataConfig
from igpt_jax.data import token_shards
from igpt_jax.data.array import write_array
from igpt_jax.data.augment import augmentations
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import batches, examples
from igpt_jax.data.sources import load_source
from igpt_jax.errors import InputError

PALETTE = Palette(np.random.default_rng(0).uniform(-1, 1, (40, 3)))


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


def tokens_of(path, split, resolution, **options):
    """Every image of a token source in order: tokens (n, r*r) and labels (n,)."""
    config = DataConfig(name=f"tokens:{path}", **options)
    source = load_source(config, split)
    _, central = augmentations(config, resolution)
    found = list(examples(source, PALETTE, central, batch_size=7))
    return np.concatenate([b["tokens"] for b in found]), np.concatenate([b["label"] for b in found]), source


@pytest.fixture(scope="module")
def palette_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("palette") / "palette.npy"
    PALETTE.save(path)
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory, palette_file):
    directory = tmp_path_factory.mktemp("tokens") / "digits"
    arguments = [f"--palette={palette_file}", "--resolution=16", "--crops=2", "--augmentation=crop", "--seed=4"]
    assert igpt("tokens", "--source=digits", f"--out={directory}", *arguments) == 0
    return directory


def test_written_tokens_read_back_as_what_the_pipeline_makes(written):
    config = DataConfig(name="digits", augmentation="crop")
    crop, central = augmentations(config, 16)
    for split, augmentation, options in (("train", crop, {"epochs": 2, "seed": 4}), ("test", central, {})):
        tokens, labels, source = tokens_of(written, split, 16)
        made = list(examples(load_source(config, split), PALETTE, augmentation, batch_size=100, **options))
        np.testing.assert_array_equal(tokens, np.concatenate([batch["tokens"] for batch in made]))
        np.testing.assert_array_equal(labels, np.concatenate([batch["label"] for batch in made]))
        assert source.classes == 10
        assert source.palette == PALETTE
    train = tokens_of(written, "train", 16)[0]
    assert np.any(train[:1293] != train[1293:])  # the second crop is another


def test_the_manifest_says_what_made_the_tokens(written):
    manifest = json.loads((written / "manifest.json").read_text())
    assert {name: manifest[name] for name in ("source", "resolution", "filter", "palette", "crops", "seed")} == {
        "source": "digits",
        "resolution": 16,
        "filter": "area",
        "palette": PALETTE.hash,
        "crops": 2,
        "seed": 4,
    }
    assert {name: split["images"] for name, split in manifest["splits"].items()} == {
        "train": 2586,
        "validation": 144,
        "test": 360,
    }


def test_training_batches_of_tokens_are_functions_of_seed_and_step(written):
    config = DataConfig(name=f"tokens:{written}")
    source, (training, _) = load_source(config, "train"), augmentations(config, 16)
    whole = batches(source, PALETTE, training, seed=1, batch_size=8)
    first, second = next(whole), next(whole)
    np.testing.assert_array_equal(first["tokens"], source.read(first["index"]))
    part = next(
        batches(source, PALETTE, training, seed=1, batch_size=8, start_step=1, process_index=1, process_count=2)
    )
    np.testing.assert_array_equal(part["tokens"], second["tokens"][4:])


def test_stored_crops_are_views_of_the_same_images(written):
    assert [load_source(DataConfig(name=f"tokens:{written}"), split).views for split in ("train", "test")] == [2, 1]


def test_an_array_of_more_images_than_a_shard_holds_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(token_shards, "_SHARD", 100)
    images = np.random.default_rng(0).integers(0, 256, (600, 4, 4, 3)).astype(np.uint8)
    for _ in range(2):  # the second call finds the tokens
        write_array(tmp_path, images, PALETTE)
    found = np.concatenate([tokens_of(tmp_path, split, 4)[0] for split in ("train", "test")])
    assert len(list(tmp_path.glob("train-*[0-9].npy"))) == 6
    np.testing.assert_array_equal(np.unique(found, axis=0), np.unique(PALETTE.encode(images), axis=0))
    assert len(found) == 600


def test_an_interrupted_writing_goes_on_after_the_last_whole_shard(written, palette_file, tmp_path, monkeypatch):
    monkeypatch.setattr(token_shards, "_SHARD", 512)
    arguments = [
        "tokens",
        "--source=digits",
        f"--palette={palette_file}",
        "--resolution=16",
        f"--out={tmp_path / 'a'}",
    ]
    arguments += ["--crops=2", "--augmentation=crop"]
    assert igpt(*arguments, "--seed=4") == 0
    expected = tokens_of(written, "train", 16)[0]
    np.testing.assert_array_equal(tokens_of(tmp_path / "a", "train", 16)[0], expected)
    (tmp_path / "a" / "manifest.json").rename(tmp_path / "a" / "manifest.partial.json")
    for i in (3, 4, 5):
        (tmp_path / "a" / f"train-{i:05d}.labels.npy").unlink()
    kept = (tmp_path / "a" / "train-00002.npy").stat().st_mtime_ns
    assert igpt(*arguments, "--seed=5") == 2  # the beginning of other tokens
    assert igpt(*arguments, "--seed=4") == 0
    assert (tmp_path / "a" / "train-00002.npy").stat().st_mtime_ns == kept
    np.testing.assert_array_equal(tokens_of(tmp_path / "a", "train", 16)[0], expected)
    assert igpt(*arguments, "--seed=4") == 2  # whole already


@pytest.fixture
def openai(tmp_path):
    """OpenAI's files in small: one-hot labels, and for CIFAR-10 no validation part."""
    rng = np.random.default_rng(0)
    for part, count in (("tr", 20), ("va", 6), ("te", 5)):
        np.save(tmp_path / f"imagenet_{part}X.npy", rng.integers(0, 40, (count, 16)))
        np.save(tmp_path / f"imagenet_{part}Y.npy", np.eye(9, dtype=np.float32)[rng.integers(0, 9, count)])
        if part != "va":
            np.save(tmp_path / f"cifar10_{part}X.npy", rng.integers(0, 40, (count, 16), dtype=np.uint16))
    return tmp_path


def test_openais_files_are_read_by_what_their_names_begin_with(openai):
    for split, part in (("train", "tr"), ("validation", "va"), ("test", "te")):
        tokens, labels, source = tokens_of(openai / "imagenet", split, 4)
        np.testing.assert_array_equal(tokens, np.load(openai / f"imagenet_{part}X.npy"))
        np.testing.assert_array_equal(labels, np.load(openai / f"imagenet_{part}Y.npy").argmax(1))
        assert source.classes == 9
    folded, labels, _ = tokens_of(openai / "imagenet", "train", 4, fold_validation=True)
    np.testing.assert_array_equal(
        folded, np.concatenate([np.load(openai / f"imagenet_{p}X.npy") for p in ("tr", "va")])
    )
    assert len(labels) == 26
    assert tokens_of(openai / "cifar10", "test", 4)[2].classes == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "imagenet_trX.npy").unlink(),
            r"holds no train tokens: there is neither .*manifest\.json",
        ),
        (lambda root: (root / "imagenet_trX.npy").write_bytes(b"no"), r"imagenet_trX\.npy is not an array of numbers"),
        (
            lambda root: np.save(root / "imagenet_trX.npy", np.zeros((20, 15), int)),
            r"\(20, 15\); expected integer tokens",
        ),
        (
            lambda root: np.save(root / "imagenet_trY.npy", np.zeros((20, 9))),
            "neither .* nor .* a single non-zero entry",
        ),
        (lambda root: np.save(root / "imagenet_trY.npy", np.eye(9)), "9 labels for 20 images"),
        (lambda root: np.save(root / "imagenet_trX.npy", np.full((20, 16), 40)), "but the palette has 40 colors"),
    ],
)
def test_damaged_files_are_refused(openai, damage, message):
    damage(openai)
    with pytest.raises(InputError, match=message):
        tokens_of(openai / "imagenet", "train", 4)


def test_tokens_of_another_resolution_are_refused(openai):
    with pytest.raises(InputError, match=r"4x4 images, but model\.resolution=5; set model\.resolution=4"):
        tokens_of(openai / "imagenet", "train", 5)


def test_another_palette_than_the_manifests_and_damaged_shards_are_refused(written, tmp_path, capsys):
    import shutil

    other = Palette(-PALETTE.colors)
    other.save(tmp_path / "other.npy")
    config = ["--config=experiments/digits.py", f"--workdir={tmp_path / 'run'}", f"--config.data.name=tokens:{written}"]
    config += [
        f"--config.{key}" for key in ("model.vocabulary=40", "model.resolution=16", "data.fold_validation=False")
    ]
    assert igpt("train", *config, f"--config.palette.path={tmp_path / 'other.npy'}") == 2
    assert f"has the palette {PALETTE.hash}, but palette.path=" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    shutil.copytree(written, tmp_path / "copy")
    (tmp_path / "copy" / "train-00000.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"train-00000\.npy is not an array of numbers"):
        tokens_of(tmp_path / "copy", "train", 16)
    other.save(tmp_path / "copy" / "palette.npy")
    with pytest.raises(InputError, match=f"has hash {other.hash}, but the tokens were made with {PALETTE.hash}"):
        tokens_of(tmp_path / "copy", "train", 16)
    (tmp_path / "copy" / "manifest.json").write_text('{"splits": ')
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        tokens_of(tmp_path / "copy", "train", 16)
    manifest = json.loads((written / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"] = [f"../{written.name}/train-00000.npy"]
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="names files of another directory"):
        tokens_of(tmp_path / "copy", "train", 16)


@pytest.mark.filterwarnings("ignore")  # of Beam, and of the libraries that it imports
def test_beam_writes_the_same_bytes_and_after_an_interruption_only_what_is_missing(
    palette_file, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("apache_beam")
    monkeypatch.setattr(token_shards, "_SHARD", 256)
    arguments = ["tokens", "--source=digits", f"--palette={palette_file}", "--resolution=8", "--crops=2"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    assert igpt(*arguments, f"--out={alone}") == 0
    assert igpt(*arguments, f"--out={together}", "--beam=") == 0
    contents = {path.name: path.read_bytes() for path in alone.iterdir()}
    assert len(contents) == 2 + 2 * (11 + 1 + 2)  # a palette, a manifest; shards of train, validation and test
    assert {path.name: path.read_bytes() for path in together.iterdir()} == contents

    (together / "manifest.json").rename(together / "manifest.partial.json")
    (together / "train-00003.labels.npy").unlink()
    (together / "test-00001.labels.npy").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in together.iterdir()}
    capsys.readouterr()
    assert igpt(*arguments, f"--out={together}", "--beam=") == 0
    assert "2 shards to write" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in together.iterdir()} == contents
    assert before["train-00002.npy"] == (together / "train-00002.npy").stat().st_mtime_ns


@pytest.mark.filterwarnings("ignore")
def test_a_pipeline_that_fails_says_so_in_one_line(palette_file, tmp_path, capsys):
    pytest.importorskip("apache_beam")
    arguments = ["tokens", "--source=digits", f"--palette={palette_file}", f"--out={tmp_path / 'out'}"]
    assert igpt(*arguments, "--beam=--runner=NoSuchRunner") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the pipeline failed" in error
