"""The size that a scaling law recommends for a budget."""

import json

import pytest

from igpt_jax.config import DataConfig, ModelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.model.flops import matmul_parameters, training_flops
from igpt_jax.parallel.budget import Law, recommended

LARGE = RunConfig(
    model=ModelConfig(layers=48, width=1536, heads=16, resolution=32, vocabulary=512),
    data=DataConfig(name="imagenet2012", batch_size=128),
)


@pytest.mark.parametrize("flops", [1e18, 1e20, 1e22])
def test_the_budget_is_spent_on_the_size_of_the_law(flops):
    law = Law(0.1, 0.5, (1e18, 1e20))
    best = recommended(LARGE, law, flops)
    assert matmul_parameters(best.model) == pytest.approx(0.1 * flops**0.5, rel=0.15)  # a width is whole heads
    assert best.model.head_dim == LARGE.model.head_dim
    assert best.model.width / best.model.layers == pytest.approx(32, rel=0.2)
    assert best.steps * training_flops(best.model, 128) == pytest.approx(flops, rel=0.01)


def test_a_model_that_the_law_already_recommends_stays():
    flops = 1e20
    law = Law(matmul_parameters(LARGE.model) / flops, 1.0, (flops, flops))
    assert recommended(LARGE, law, flops).model == LARGE.model


def test_a_budget_for_no_step_is_refused():
    with pytest.raises(InputError, match="--flops=1000 are not enough"):
        recommended(LARGE, Law(1.0, 0.5, (1, 2)), 1000)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"coefficient": "x", "exponent": 1, "budgets": [1, 2]}'])
def test_what_is_no_law_is_refused(tmp_path, text):
    path = tmp_path / "law.json"
    path.write_text(text)
    with pytest.raises(InputError, match="holds no law"):
        Law.load(path)
    with pytest.raises(InputError, match="cannot be read"):
        Law.load(tmp_path / "other.json")


def test_a_law_is_read(tmp_path):
    path = tmp_path / "law.json"
    path.write_text(json.dumps({"coefficient": 2.0, "exponent": 0.5, "budgets": [1e3, 1e4]}))
    assert Law.load(path)(9.0) == 6.0
