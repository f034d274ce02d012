"""Arguments of experiment files: typed, and refused in a line that names them."""

import argparse
import pathlib

import pytest

from experiments.arguments import local_directory, read_arguments
from igpt_jax.errors import InputError

DEFAULTS = {"size": ("s", "l"), "resolution": 32, "rate": 0.0, "from": ""}


def test_what_is_given_has_the_type_of_its_default_and_the_rest_stays():
    found = read_arguments("resolution=48,rate=1e-3,from=runs/a=b", **DEFAULTS)
    assert found == {"size": "s", "resolution": 48, "rate": 0.001, "from": "runs/a=b"}
    assert isinstance(found["resolution"], int)
    assert read_arguments("", **DEFAULTS) == {"size": "s", "resolution": 32, "rate": 0.0, "from": ""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise=l", "'sise=l' is not an argument; give size, resolution, rate, from, such as size=s,resolution=32"),
        ("size", "'size' is not an argument"),
        ("from=", "'from=' is not an argument"),
        ("size=xs", "size=xs is not one of s, l"),
        ("resolution=4.5", "resolution=4.5, but resolution is a whole number, such as 32"),
        ("rate=fast", "rate=fast, but rate is a number, such as 0"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(InputError) as refused:
        read_arguments(text, **DEFAULTS)
    assert message in str(refused.value)


def test_an_experiment_keeps_its_runs_on_this_machine():
    assert local_directory("runs/a") == pathlib.Path("runs/a")
    with pytest.raises(argparse.ArgumentTypeError, match="gs://bucket/runs is no directory of this machine"):
        local_directory("gs://bucket/runs")
