"""Every shipped config that trains, with any number of images: the run begins, warms up in a part of it, and ends."""

import importlib

import numpy as np
import pytest

from experiments import modern
from igpt_jax.config import RunConfig
from igpt_jax.data.sources import load_source
from igpt_jax.train.optimizer import learning_rate_schedule, warmup_steps

CONFIGS = {
    "digits": ("",),
    "emoji": ("", "resolution=32", "recipe=paper"),
    "photographs": ("", "recipe=paper"),
    "blended_digits": ("",),
    "modern": ("data=digits", "data=emoji,with=paper", "data=imagenet2012,size=l"),
    "table5_pretrain": ("scale=miniature", "scale=paper"),
}


@pytest.mark.parametrize("images", [1, 10, 1_000, 100_000])
@pytest.mark.parametrize(("name", "arguments"), [(name, text) for name, texts in CONFIGS.items() for text in texts])
def test_a_config_has_a_sensible_schedule_for_any_number_of_images(name, arguments, images):
    module = importlib.import_module(f"experiments.{name}")
    check_schedule(RunConfig.from_dict(module.get_config(*filter(None, [arguments])).to_dict()), images)


@pytest.mark.parametrize("images", [1, 10, 1_000, 100_000])
def test_the_folder_config_has_a_sensible_schedule_for_any_folder(images, monkeypatch):
    from experiments import folder

    monkeypatch.setattr("pathlib.Path.rglob", lambda *_: [folder.pathlib.Path(__file__)] * images)
    config = RunConfig.from_dict(folder.get_config("anywhere").to_dict())
    assert config.steps <= max(400, 3 * images / config.data.batch_size)
    check_schedule(config, images)


def check_schedule(config, images):
    steps_per_epoch = images / config.data.batch_size
    warmup = warmup_steps(config.optimizer, steps=config.steps, steps_per_epoch=steps_per_epoch)
    assert 0 <= warmup <= config.steps / 4
    schedule = learning_rate_schedule(config.optimizer, steps=config.steps, steps_per_epoch=steps_per_epoch)
    rates = np.array([schedule(step) for step in np.linspace(0, config.steps - 1, 9).astype(int)])
    assert np.isfinite(rates).all()
    assert rates.max() <= config.optimizer.learning_rate * (1 + 1e-6)
    assert rates[4] > 0.2 * config.optimizer.learning_rate


@pytest.mark.parametrize("data", ["digits", "photographs"])
def test_the_warm_up_of_the_modern_recipe_is_that_of_the_data_s_own_number_of_images(data):
    config = RunConfig.from_dict(modern.get_config(f"data={data}").to_dict())
    steps_per_epoch = len(load_source(config.data, "train")) / config.data.batch_size
    warmup = warmup_steps(config.optimizer, steps=config.steps, steps_per_epoch=steps_per_epoch)
    assert warmup == pytest.approx(modern.WARMUP_STEPS, abs=1)
