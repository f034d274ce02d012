"""The options: what reaches the dataclasses, and what is refused on the way."""

import dataclasses
import json

import pytest

from igpt_jax.config import SIZES, ModelConfig, RunConfig, default_config
from igpt_jax.errors import InputError


def test_the_default_config_is_the_default_run():
    assert RunConfig.from_dict(default_config().to_dict()) == RunConfig()


def test_a_config_survives_json():
    config = RunConfig(seed=3, model=SIZES["l"])
    assert RunConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_the_models_objective_follows_the_objectives_name():
    assert "objective" not in default_config().model
    config = default_config()
    config.objective.name = "bert"
    run = RunConfig.from_dict(config.to_dict())
    assert run.model.objective == "bert"
    assert RunConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(run)))) == run


def test_the_sizes_are_the_papers():
    shapes = {name: (size.layers, size.width) for name, size in SIZES.items()}
    assert shapes == {"s": (24, 512), "m": (36, 1024), "l": (48, 1536), "xl": (60, 3072)}
    assert {name: SIZES[name].heads for name in "sml"} == {"s": 8, "m": 8, "l": 16}


def test_a_misspelled_option_cannot_be_set():
    with pytest.raises(AttributeError, match="Did you mean"):
        default_config().model.widht = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"widht": 3}}, r"no key model.widht; did you mean model.width\?"),
        ({"model": {"width": "wide"}}, "model.width='wide' is a str; expected int"),
        ({"model": {"dtype": "float16"}}, "model.dtype='float16' is not known; choose one of float32, bfloat16"),
        ({"data": {"filter": "box"}}, "data.filter='box' is not known; choose one of area, bilinear, bicubic"),
        (
            {"data": {"augmentation": "crops"}},
            "data.augmentation='crops' is not known; choose one of auto, none, flip, crop",
        ),
        ({"data": {"on_error": "ignore"}}, "data.on_error='ignore' is not known; choose one of fail, skip"),
        ({"data": {"max_pixels": 0}}, "data.max_pixels=0 must be at least 1"),
        ({"evaluate": {"split": "train"}}, "evaluate.split='train' is not known; choose one of test, validation"),
        ({"optimizer": {"b2": 1}}, r"optimizer.b2=1.0 must lie in \[0, 1\)"),
        ({"optimizer": {"eps": 0}}, "optimizer.eps=0.0 must be positive"),
        ({"evaluate": {"probe": {"l2": [-1.0]}}}, "probe.l2 has -1.0; a strength is 0 or more"),
        ({"optimizer": {"learning_rate": -1}}, "learning_rate=-1.0 must be positive"),
        ({"parallel": {"data": -1, "model": -1}}, "cannot both be -1"),
        ({"evaluate": {"probe": {"layers": [25]}}}, "layer 25; a model of 24 layers has 0 to 24"),
        ({"evaluate": {"probe": {"concatenate": 26}}}, "concatenate=26, but a model of 24 layers has features of 25"),
        ({"evaluate": {"probe": {"solver": "adam"}}}, "probe.solver='adam' is not known; choose one of lbfgs, sgd"),
        ({"evaluate": {"probe": {"rates": [3.0, 0]}}}, "probe.rates has 0.0; a learning rate is positive"),
        ({"evaluate": {"probe": {"solver": "sgd", "labels_per_class": [4]}}}, "labels_per_class .*solver=lbfgs"),
        ({"objective": {"name": "brt"}}, "objective.name='brt' is not known; choose one of ar, bert"),
        ({"objective": {"mask_rate": 0}}, r"mask_rate=0.0 must lie in \(0, 1\]"),
        ({"model": {"objective": "bert"}}, "model.objective='bert' but objective.name='ar'; set objective.name"),
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"model": {"head_layer": 25}}, "model.head_layer=25; a model of 24 layers has 0 to 24, and -1 is the last"),
        ({"objective": {"class_weight": -1}}, r"objective.class_weight=-1.0 must be at least 0 \(left out\)"),
        (
            {"objective": {"generation_weight": 0}},
            "generation_weight=0 weighs against objective.class_",
        ),
        ({"objective": {"class_weight": 1}, "model": {"token_head": False}}, "token_head=False is for loading"),
        ({"optimizer": {"schedule": "linear"}}, "schedule='linear' is not known; choose one of cosine, constant"),
        ({"stop_after": 3}, "stop_after=3 does not say which metric must improve; set keep_best"),
        ({"evaluate": {"votes": 0}}, "evaluate.votes=0 must be at least 1"),
        ({"evaluate": {"views": 0}}, "evaluate.views=0 must be at least 1"),
        ({"model": {"tied_head": True, "token_head": False}}, "tied_head=True asks for a token head, and .* for none"),
        (
            {"keep_best": "validation/accuracy", "evaluate": {"every": 1, "split": "validation"}},
            "is not measured while objective.class_weight=0; set it to probe/accuracy",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(change, message):
    with pytest.raises(InputError, match=message):
        RunConfig.from_dict(change)


def test_derived_sizes_follow_from_the_shape():
    config = ModelConfig(width=96, heads=4, resolution=5)
    assert (config.context, config.head_dim, config.causal) == (25, 24, True)
