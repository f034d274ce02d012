"""Short runs of the two long commands, `python -m tests.soak` and `python -m tests.fuzz`."""

import collections

import pytest

from tests.fuzz import fuzz
from tests.soak import soak

pytestmark = pytest.mark.slow


@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_a_killed_run_equals_an_undisturbed_one(tmp_path):
    assert soak(tmp_path, kills=3, seed=0)["runs compared"] >= 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax, where a read has failed
def test_no_damage_is_accepted_and_none_ends_in_a_traceback(tmp_path):
    counts = sum(fuzz(tmp_path, cases=80, seed=1).values(), collections.Counter())
    assert counts["cases"] == 80
    assert counts["silent"] == counts["tracebacks"] == counts["files left"] == 0
