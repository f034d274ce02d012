"""What remat=auto has chosen is remembered in the workdir."""

import dataclasses
import json

import jax
import pytest

from igpt_jax.config import ParallelConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.remat import FILE, remember_remat, remembered_remat
from tests.train.runs import CONFIG, train, with_options

AUTO = with_options(model=dataclasses.replace(CONFIG.model, remat="auto"))


@pytest.fixture
def mesh():
    return make_mesh(ParallelConfig(), jax.devices()[:2])


def test_a_choice_is_taken_again_in_the_same_circumstances_alone(tmp_path, mesh):
    assert remembered_remat(tmp_path, AUTO, mesh) == "auto"
    remember_remat(tmp_path, AUTO, mesh, "dots")
    assert remembered_remat(tmp_path, AUTO, mesh) == "dots"
    assert remembered_remat(tmp_path, AUTO, make_mesh(ParallelConfig(), jax.devices()[:4])) == "auto"
    microbatches = dataclasses.replace(AUTO, parallel=ParallelConfig(microbatches=2))
    assert remembered_remat(tmp_path, microbatches, mesh) == "auto"


def test_a_policy_of_the_config_stays(tmp_path, mesh):
    remember_remat(tmp_path, CONFIG, mesh, "dots")
    assert not (tmp_path / FILE).exists()
    assert remembered_remat(tmp_path, CONFIG, mesh) == "none"


@pytest.mark.parametrize("content", ["", "[]", '{"remat": "dots"}', '{"remat": "most", "circumstances": {}}'])
def test_a_damaged_note_is_passed_over(content, tmp_path, mesh):
    (tmp_path / FILE).write_text(content)
    assert remembered_remat(tmp_path, AUTO, mesh) == "auto"


def test_a_run_writes_down_its_choice(tmp_path):
    train(tmp_path, config=AUTO)
    assert json.loads((tmp_path / FILE).read_text())["remat"] == "none"  # a CPU does not say how much memory it has
