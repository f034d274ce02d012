import numpy as np
import pytest
from sklearn.datasets import load_digits

from igpt_jax.config import DataConfig
from igpt_jax.data.builders import Digits
from igpt_jax.data.sources import load_source
from igpt_jax.errors import InputError


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def rows(directory, split):
    """Each record's place in scikit-learn's arrays."""
    builder = Digits(data_dir=directory, file_format="array_record")
    return np.array([record["index"] for record in builder.as_data_source(split)])


def test_digits_are_scikit_learns_split_in_two(directory):
    digits = load_digits()
    levels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    found = []
    for split, size in (("train", 1437), ("test", 360)):
        source = load_source(DataConfig(name="digits", directory=directory, fold_validation=True), split)
        row = rows(directory, split)
        assert len(source) == size
        np.testing.assert_array_equal(source.images, levels[row][..., None].repeat(3, axis=-1))
        np.testing.assert_array_equal(source.labels, digits.target[row])
        found.append(row)
    assert sorted(np.concatenate(found)) == list(range(1797))
    assert np.any(np.diff(found[0]) < 0)  # shuffled, not the first 1,437


def test_a_source_has_the_promised_types(directory):
    source = load_source(DataConfig(name="digits", directory=directory), "test")
    assert source.images.shape == (360, 8, 8, 3)
    assert source.images.dtype == np.uint8
    assert source.labels.dtype == np.int32
    assert source.classes == 10


def test_a_prepared_source_is_only_read_and_nothing_is_printed(directory, capfd):
    first = load_source(DataConfig(name="digits", directory=directory), "train")
    capfd.readouterr()
    again = load_source(DataConfig(name="digits", directory=directory), "train")
    np.testing.assert_array_equal(first.images, again.images)
    assert capfd.readouterr() == ("", "")


def test_preparing_prints_nothing(tmp_path, capfd):
    load_source(DataConfig(name="digits", directory=str(tmp_path)), "test")
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.rglob("*.array_record*"))


def test_unknown_names_and_places_are_refused(directory, tmp_path):
    with pytest.raises(
        InputError,
        match=r"data\.name='mnost' is not a source; choose digits, emoji, photographs, blended_digits, a TFDS",
    ):
        load_source(DataConfig(name="mnost", directory=directory), "train")
    with pytest.raises(InputError, match="split 'dev' is not known; choose one of train, validation, test"):
        load_source(DataConfig(name="digits", directory=directory), "dev")
    with pytest.raises(InputError, match=r"digits has 1437 images .* leaves none for validation"):
        load_source(DataConfig(name="digits", directory=directory, fold_validation=True), "validation")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot prepare digits in data\.directory="):
        load_source(DataConfig(name="digits", directory=str(tmp_path / "file")), "train")
