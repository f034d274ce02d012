"""Round trips exact to the bit, the command, and failures that leave nothing behind."""

import dataclasses
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint.checkpoint_managers import LatestN
from safetensors.numpy import load_file

import igpt_jax as ig
from igpt_jax.__main__ import main
from igpt_jax.config import ObjectiveConfig, ParallelConfig, RunConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.state import abstract_params
from igpt_jax.weights.convert import convert
from tests.weights.written import huggingface_model, openai_tensors, save_openai

MODEL = ig.ModelConfig(layers=2, width=24, heads=3, resolution=4, vocabulary=17)
PALETTE = ig.Palette(np.linspace(-1, 1, 51).reshape(17, 3))
VARIANTS = {
    "ar": MODEL,
    "bert": dataclasses.replace(MODEL, objective="bert"),
    "classes": dataclasses.replace(MODEL, classes=5),
    "biases": dataclasses.replace(MODEL, use_bias=True),
    "headless": dataclasses.replace(MODEL, token_head=False, classes=5),
}


def write_workdir(directory, config, step=30):
    """A workdir of random parameters, as training leaves it."""
    like = abstract_params(ig.ImageGPT(config), make_mesh(ParallelConfig(), jax.devices()[:1]))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), like)
    checkpoints = Checkpoints(directory, keep=LatestN(1))
    checkpoints.save_params(step, params, RunConfig(model=config, objective=ObjectiveConfig(config.objective)), PALETTE)
    checkpoints.close()
    return params


WAYS = [("huggingface", variant) for variant in VARIANTS] + [
    ("openai", variant) for variant in ("ar", "bert", "classes")
]


@pytest.mark.parametrize(("by_way_of", "variant"), WAYS)
def test_igpt_comes_back_to_the_bit(by_way_of, variant, tmp_path):
    params = write_workdir(tmp_path / "run", VARIANTS[variant])
    convert(tmp_path / "run", tmp_path / "there", by_way_of)
    convert(tmp_path / "there", tmp_path / "back", "igpt")
    model, back, palette = ig.load(tmp_path / "back")
    assert (model.config, palette) == (VARIANTS[variant], PALETTE)
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("to", ["huggingface", "openai", "igpt"])
def test_a_tied_head_keeps_its_logits_in_every_format(to, tmp_path):
    params = write_workdir(tmp_path / "run", dataclasses.replace(MODEL, tied_head=True))
    assert "token_head" not in params
    convert(tmp_path / "run", tmp_path / "there", to)
    tokens_bt = np.random.default_rng(1).integers(0, 17, (2, 16))
    tied, there = (model.apply({"params": p}, tokens_bt) for model, p, _ in map(ig.load, tmp_path.iterdir()))
    assert ig.load(tmp_path / "there")[0].config.tied_head == (to == "igpt")
    np.testing.assert_array_equal(tied, there)


@pytest.mark.parametrize("to", ["huggingface", "openai"])
def test_a_class_head_on_an_inner_layer_goes_to_a_work_dir_only(to, tmp_path):
    params = write_workdir(tmp_path / "run", dataclasses.replace(MODEL, classes=5, head_layer=1))
    with pytest.raises(ig.InputError, match=r"class head reads layer 1, .*; convert it with --to=igpt"):
        convert(tmp_path / "run", tmp_path / "there", to)
    convert(tmp_path / "run", tmp_path / "back", "igpt")
    model, back, _ = ig.load(tmp_path / "back")
    assert model.config.head_layer == 1
    jax.tree.map(np.testing.assert_array_equal, back, params)


MODERN = {"positions": "rotary", "qk_norm": True, "activation": "swiglu"}


@pytest.mark.parametrize("to", ["huggingface", "openai"])
@pytest.mark.parametrize("option", MODERN)
def test_a_block_that_the_format_does_not_know_is_refused(option, to, tmp_path):
    write_workdir(tmp_path / "run", dataclasses.replace(MODEL, **{option: MODERN[option]}))
    with pytest.raises(ig.InputError, match=rf"model.{option}={MODERN[option]}, .* supports only .*--to=igpt"):
        convert(tmp_path / "run", tmp_path / "there", to)
    assert not (tmp_path / "there").exists()


def test_a_block_of_today_comes_back_to_the_bit(tmp_path):
    config = dataclasses.replace(MODEL, **MODERN)
    params = write_workdir(tmp_path / "run", config)
    convert(tmp_path / "run", tmp_path / "back", "igpt")
    model, back, _ = ig.load(tmp_path / "back")
    assert model.config == config
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("head", ["ForCausalImageModeling", "bert"])
def test_huggingface_comes_back_from_openai_to_the_bit(head, tmp_path):
    model = huggingface_model()
    if head == "bert":
        model.transformer.wte.weight.data[-1] = 0
    model.save_pretrained(tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "openai", "openai")
    convert(tmp_path / "openai", tmp_path / "back", "huggingface")
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("hf", "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor, err_msg=name)


def test_the_step_survives_where_the_format_has_one(tmp_path):
    write_workdir(tmp_path / "run", MODEL, step=70)
    convert(tmp_path / "run", tmp_path / "openai", "openai")
    convert(tmp_path / "openai", tmp_path / "back", "igpt")
    assert (tmp_path / "openai" / "model.ckpt-70.index").exists()
    assert Checkpoints(tmp_path / "back").steps == [70]


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


def test_the_command_makes_a_work_dir_that_samples_and_refuses_to_train_on(tmp_path, capsys):
    save_openai(tmp_path / "model.ckpt-70", openai_tensors())
    PALETTE.save(tmp_path / "colors.npy")
    arguments = ["convert", f"--input={tmp_path}", f"--output={tmp_path / 'run'}", "--to=igpt"]
    assert igpt(*arguments) == 2
    assert "add --palette=kmeans_centers.npy" in capsys.readouterr().err
    assert igpt(*arguments, f"--palette={tmp_path / 'colors.npy'}") == 0
    assert "15,168 parameters for igpt, palette of 17 colors" in capsys.readouterr().out
    assert igpt("sample", f"--workdir={tmp_path / 'run'}", "--n=1") == 0
    with pytest.raises(ig.InputError, match="no optimizer state, so training cannot resume"):
        Checkpoints(tmp_path / "run").restore(70, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": ""}, "--to is missing; convert needs --input=PATH --output=DIR --to=FORMAT"),
        ({"input": ""}, "--input is missing"),
        ({"to": "onnx"}, "there is no format 'onnx'; choose one of igpt, huggingface, openai"),
        ({"input": "nowhere"}, "no checkpoint in nowhere"),
        ({"output": "in"}, "in exists; name a new directory"),
        ({"palette": "nowhere.npy"}, "no palette at nowhere.npy"),
    ],
)
def test_a_refused_conversion_is_one_line_and_leaves_nothing(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    huggingface_model().save_pretrained("in")
    values = {"input": "in", "output": "out", "to": "openai"} | arguments
    assert igpt("convert", *(f"--{name}={value}" for name, value in values.items())) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("to", ["huggingface", "openai", "igpt"])
def test_a_conversion_that_fails_midway_leaves_nothing(to, tmp_path):
    save_openai(tmp_path / "model.ckpt-1", openai_tensors())
    PALETTE.save(tmp_path / "kmeans_centers.npy")
    before = set(tmp_path.iterdir())
    data = next(tmp_path.glob("*.data-*"))
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(ig.InputError, match="cannot be read"):
        convert(tmp_path, tmp_path / "out", to)
    assert set(tmp_path.iterdir()) == before


def test_help_imports_neither_jax_nor_tensorflow():
    program = (
        "import sys; from igpt_jax.__main__ import main; assert main(['igpt_jax', 'convert', '--help']) == 0; "
        "print(sorted({'jax', 'tensorflow'} & set(sys.modules)))"
    )
    root = pathlib.Path(ig.__file__).parents[1]
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    ).stdout
    assert "--input" in output
    assert "--workdir" not in output
    assert output.endswith("[]\n")
