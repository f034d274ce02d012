"""`ig.load`: what it recognizes, where the palette comes from, and where the parameters go."""

import dataclasses

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.state import abstract_params, init_params
from igpt_jax.weights.convert import convert
from tests.weights.written import huggingface_model, openai_tensors, save_openai

SIZE = (2, 32, 4, 4, 17)  # splits over eight devices
PALETTE = ig.Palette(np.linspace(-1, 1, 51).reshape(17, 3))


@pytest.mark.parametrize("to", ["huggingface", "openai", "igpt"])
def test_every_parameter_lands_in_its_sharding(to, tmp_path):
    tensors = openai_tensors(SIZE)
    save_openai(tmp_path / "in" / "model.ckpt-1", tensors)
    convert(tmp_path / "in", tmp_path / "out", to, palette=PALETTE)
    mesh = make_mesh(ParallelConfig(data=4, model=2))
    model, params, _ = ig.load(tmp_path / "out", mesh=mesh)
    for leaf, like in zip(jax.tree.leaves(params), jax.tree.leaves(abstract_params(model, mesh)), strict=True):
        assert leaf.sharding == like.sharding
    up_ldf = params["blocks"]["mlp"]["up"]["kernel"]
    assert up_ldf.addressable_shards[0].data.shape == (2, 32 // 4, 128 // 2)
    np.testing.assert_array_equal(up_ldf[1], tensors["model/h1/mlp/c_fc/w"])


def test_parameters_go_to_all_devices_unless_told_otherwise(tmp_path):
    save_openai(tmp_path / "model.ckpt-1", openai_tensors(SIZE))
    _, params, _ = ig.load(tmp_path)
    assert len(params["token_head"].sharding.device_set) == 8


def test_a_model_of_a_tpus_kernel_runs_on_a_cpu_too(tmp_path):
    config = ig.ModelConfig(layers=1, width=32, heads=4, resolution=16, vocabulary=17, attention="splash")
    model, mesh = ImageGPT(config), make_mesh(ParallelConfig())
    ig.save(ig.Pretrained(model, init_params(model, 0, mesh), PALETTE), tmp_path / "run", to="igpt")
    loaded = ig.load(tmp_path / "run")
    assert loaded.model.config == dataclasses.replace(config, attention="auto")
    assert np.isfinite(ig.likelihood(loaded, np.zeros((1, 16, 16, 3), np.uint8))).all()


def test_the_palette_is_found_or_given_and_its_absence_says_how_to_supply_one(tmp_path):
    save_openai(tmp_path / "model.ckpt-1", openai_tensors())
    _, _, palette = ig.load(tmp_path)
    for use in (lambda: palette.encode(np.zeros((1, 4, 4, 3), np.uint8)), lambda: palette.colors):
        with pytest.raises(ig.InputError, match=r"has no palette, .* load it with palette='kmeans_centers\.npy'"):
            use()
    PALETTE.save(tmp_path / "colors.npy")
    for given in (PALETTE, tmp_path / "colors.npy"):
        assert ig.load(tmp_path, palette=given)[2] == PALETTE
    PALETTE.save(tmp_path / "kmeans_centers.npy")
    assert ig.load(tmp_path)[2] == PALETTE
    convert(tmp_path, tmp_path / "hf", "huggingface")
    assert ig.load(tmp_path / "hf")[2] == PALETTE


def test_a_palette_of_another_size_is_refused(tmp_path):
    huggingface_model().save_pretrained(tmp_path)
    with pytest.raises(ig.InputError, match=r"the palette has 2 colors, and .* was trained on 17"):
        ig.load(tmp_path, palette=ig.Palette(np.zeros((2, 3))))


@pytest.mark.parametrize("name", ["nowhere", "nowhere/model.ckpt-1", "", "file.txt"])
def test_a_path_without_weights_is_refused(name, tmp_path):
    (tmp_path / "file.txt").write_text("text")
    with pytest.raises(ig.InputError, match=r"no checkpoint in .* train one .* or an OpenAI checkpoint"):
        ig.load(tmp_path / name)
