"""Weights in OpenAI's format: the released graph's equations on its own names, and what its Saver restores."""

import subprocess
import sys

import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.weights.convert import convert
from igpt_jax.weights.load import open_weights
from tests.weights import openai_reference
from tests.weights.test_huggingface import draw_tokens
from tests.weights.written import ODD, TINY, huggingface_model, openai_tensors, restore_openai, save_openai


@pytest.mark.parametrize("objective", ["ar", "bert"])
@pytest.mark.parametrize("size", [TINY, ODD])
def test_logits_are_those_of_the_released_equations(size, objective, tmp_path):
    tensors = openai_tensors(size, objective=objective, classes=3)
    save_openai(tmp_path / "model.ckpt-70", tensors)
    model, params, _ = ig.load(tmp_path, objective=objective)
    tokens_bt = draw_tokens(size, 2)
    mask = np.random.default_rng(4).random(tokens_bt.shape) < 0.3 if objective == "bert" else None
    logits_btv, classes_bc = model.apply({"params": params}, tokens_bt, mask, method="classify")
    expected_btv, expected_bc = openai_reference.forward(tensors, tokens_bt, mask)
    np.testing.assert_allclose(logits_btv, expected_btv, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(classes_bc, expected_bc, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("objective", ["ar", "bert"])
def test_what_is_written_restores_under_the_released_names(objective, tmp_path):
    tensors = openai_tensors(objective=objective, classes=3)
    save_openai(tmp_path / "model.ckpt-70", tensors)
    convert(tmp_path, tmp_path / "again", "openai", palette=ig.Palette(np.zeros((17, 3))))
    restored = restore_openai(tmp_path / "again" / "model.ckpt-70", {name: x.shape for name, x in tensors.items()})
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(restored[name], tensor, err_msg=name)
    names = {file.name for file in (tmp_path / "again").iterdir()}
    assert names == {"kmeans_centers.npy", "model.ckpt-70.index"} | {
        f"model.ckpt-70.data-0000{i}-of-00003" for i in range(3)
    }


@pytest.mark.parametrize(
    "name", ["", "model.ckpt-70", "model.ckpt-70.index", "model.ckpt-70.meta", "model.ckpt-70.data-00000-of-00001"]
)
def test_directory_prefix_and_any_file_name_the_same_checkpoint(name, tmp_path):
    save_openai(tmp_path / "model.ckpt-70", openai_tensors())
    ig.Palette(np.linspace(-1, 1, 51).reshape(17, 3)).save(tmp_path / "kmeans_centers.npy")
    weights = open_weights(tmp_path / name)
    assert (weights.step, weights.config.layers, weights.palette.colors[0, 0]) == (70, 2, -1)


def test_mlp_weights_kept_as_kernels_of_a_convolution_load(tmp_path):
    tensors = openai_tensors()
    squeezed = {name: x[None] if name.endswith("/w") else x for name, x in tensors.items()}
    save_openai(tmp_path / "model.ckpt-1", squeezed)
    _, params, _ = ig.load(tmp_path)
    np.testing.assert_array_equal(params["blocks"]["mlp"]["up"]["kernel"][1], tensors["model/h1/mlp/c_fc/w"])


@pytest.mark.parametrize(("written", "asked"), [("ar", "bert"), ("bert", "ar")])
def test_the_other_objective_is_refused(written, asked, tmp_path):
    save_openai(tmp_path / "model.ckpt-1", openai_tensors(objective=written))
    with pytest.raises(
        ig.InputError, match=f"holds '{written}' weights, with.* start vector, .* give the path of '{asked}'"
    ):
        ig.load(tmp_path, objective=asked)


def without(tensors, *names):
    return {name: x for name, x in tensors.items() if name not in names}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors | {"model/h0/odd": np.zeros(2, np.float32)},
            "has the unexpected h0/odd; expected the 21",
        ),
        (
            lambda tensors: without(tensors, "model/wtet", "model/h1/attn/c_proj"),
            "lacks h1/attn/c_proj, wtet; expected",
        ),
        (
            lambda tensors: tensors | {"model/wtet": np.zeros((18, 24), np.float32)},
            r"wtet has shape \(18, 24\); its config and other tensors make it \(17, 24\)",
        ),
        (lambda _: {"weight": np.zeros((3, 4), np.float32)}, "has no model/wte with 2 axes; give a checkpoint"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, message, tmp_path):
    save_openai(tmp_path / "model.ckpt-1", change(openai_tensors()))
    with pytest.raises(ig.InputError, match=message):
        open_weights(tmp_path)


def test_incomplete_files_are_refused(tmp_path):
    save_openai(tmp_path / "in" / "model.ckpt-1", openai_tensors())
    convert(tmp_path / "in", tmp_path / "out", "openai")
    shard = tmp_path / "out" / "model.ckpt-1.data-00001-of-00003"
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(
        ig.InputError, match=r"model\.ckpt-1: model/h.* cannot be read .* download the checkpoint again"
    ):
        ig.load(tmp_path / "out")
    shard.unlink()
    with pytest.raises(ig.InputError, match=f"lacks 1 of 4 files, such as {shard.name}"):
        ig.load(tmp_path / "out")
    (tmp_path / "in" / "model.ckpt-1.index").write_bytes(b"cut")
    with pytest.raises(ig.InputError, match="index is damaged"):
        ig.load(tmp_path / "in")


def test_a_directory_of_two_checkpoints_asks_for_one(tmp_path):
    for step in (1, 2):
        save_openai(tmp_path / f"model.ckpt-{step}", openai_tensors())
    with pytest.raises(ig.InputError, match=r"holds the checkpoints model\.ckpt-1, model\.ckpt-2; name one"):
        ig.load(tmp_path)
    assert open_weights(tmp_path / "model.ckpt-2").step == 2


def test_only_zero_biases_and_whole_models_go_to_openai(tmp_path):
    huggingface_model(biases=True).save_pretrained(tmp_path / "biased")
    with pytest.raises(ig.InputError, match="query/bias of layer 0 is not zero, and OpenAI's graph has no biases"):
        convert(tmp_path / "biased", tmp_path / "out", "openai")
    huggingface_model(head="Model").save_pretrained(tmp_path / "bare")
    with pytest.raises(ig.InputError, match="no token head, which OpenAI's graph needs"):
        convert(tmp_path / "bare", tmp_path / "out", "openai")
    assert {path.name for path in tmp_path.iterdir()} == {"biased", "bare"}


def test_without_tensorflow_the_message_says_what_to_install(tmp_path):
    save_openai(tmp_path / "model.ckpt-1", openai_tensors())
    program = (
        "import sys; sys.modules['tensorflow'] = None\nimport igpt_jax as ig\n"
        f"try: ig.load({str(tmp_path)!r})\nexcept ig.InputError as error: print(error)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "need TensorFlow" in finished.stdout
    assert "pip install tensorflow-cpu" in finished.stdout
