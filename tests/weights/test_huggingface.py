"""Weights in Hugging Face's format: the same network as transformers', both ways."""

import json

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.generate.sample import Sampler, image_keys, sample
from igpt_jax.objectives import autoregressive
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.weights.convert import convert
from igpt_jax.weights.load import open_weights
from tests.weights.written import ODD, TINY, S, huggingface_model

SIZES = [TINY, ODD, pytest.param(S, marks=pytest.mark.slow)]
ONE = make_mesh(ParallelConfig(), jax.devices()[:1])


def draw_tokens(size, batch):
    *_, resolution, colors = size
    return np.random.default_rng(1).integers(0, colors, (batch, resolution**2)).astype(np.int32)


def with_start(tokens_bt, colors):
    """What transformers must be fed for position i to predict token i: the start token, and all tokens but the last."""
    return torch.tensor(np.concatenate([np.full((len(tokens_bt), 1), colors), tokens_bt[:, :-1]], axis=1)).long()


def saved(directory, *args, **kwargs):
    model = huggingface_model(*args, **kwargs)
    model.save_pretrained(directory)
    return model


def rewrite(directory, name, values):
    """Changes entries of a JSON file; None removes one."""
    path = directory / name
    merged = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))


def rewrite_tensors(directory, **values):
    """Changes tensors of model.safetensors; None removes one."""
    tensors = load_file(directory / "model.safetensors") | values
    tensors = {name: value for name, value in tensors.items() if value is not None}
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_logits_gradients_and_greedy_samples_are_those_of_transformers(size, biases, tmp_path):
    colors, batch = size[-1], 1 if size is S else 3
    theirs = saved(tmp_path / "hf", size, biases=biases, std=0.04 if size is S else 0.3)
    model, params, _ = ig.load(tmp_path / "hf", mesh=ONE)
    assert model.config.use_bias == biases
    tokens_bt = draw_tokens(size, batch)

    logits_btv = theirs(with_start(tokens_bt, colors)).logits
    np.testing.assert_allclose(
        jax.jit(model.apply)({"params": params}, tokens_bt), logits_btv.detach(), rtol=1e-4, atol=1e-4
    )

    given_bt = tokens_bt[:, : tokens_bt.shape[1] - 12]
    generated_bt = theirs.generate(
        with_start(np.pad(given_bt, ((0, 0), (0, 1))), colors), max_length=tokens_bt.shape[1] + 1, do_sample=False
    )
    drawn_bt = sample(model, params, image_keys(0, batch), given_bt, Sampler(temperature=0)).tokens
    np.testing.assert_array_equal(generated_bt[:, 1:], drawn_bt)

    torch.nn.functional.cross_entropy(logits_btv.flatten(0, 1), torch.tensor(tokens_bt).long().flatten()).backward()
    compare_gradients(model, params, tokens_bt, theirs, tmp_path / "gradients")


def compare_gradients(model, params, tokens_bt, theirs, directory):
    """Relative error of each tensor, layer by layer; transformers' gradients come as the weights of a model."""
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(parameter.grad)
    theirs.save_pretrained(directory)
    expected = dict(jax.tree.leaves_with_path(ig.load(directory, mesh=ONE)[1]))
    gradient = jax.jit(jax.grad(lambda params: autoregressive(model, params, {"tokens": tokens_bt}, None)[0]))
    for path, leaf in jax.tree.leaves_with_path(gradient(params)):
        in_layers = "blocks" in jax.tree_util.keystr(path)
        for ours, other in zip(*(x if in_layers else [x] for x in (leaf, expected[path])), strict=True):
            if "['key']['bias']" in jax.tree_util.keystr(path):  # zero in exact arithmetic
                np.testing.assert_allclose(ours, other, atol=1e-6)
            else:
                assert np.linalg.norm(ours - other) < 1e-3 * np.linalg.norm(other), path


def test_class_heads_and_headless_models_load_and_return(tmp_path):
    theirs = saved(tmp_path / "classifier", head="ForImageClassification", num_labels=5)
    model, params, _ = ig.load(tmp_path / "classifier")
    assert (model.config.classes, model.config.token_head) == (5, False)
    tokens_bt = draw_tokens(TINY, 2)
    _, classes_bc = model.apply({"params": params}, tokens_bt, method="classify")
    np.testing.assert_allclose(classes_bc, theirs(with_start(tokens_bt, 17)).logits.detach(), rtol=1e-4, atol=1e-4)
    convert(tmp_path / "classifier", tmp_path / "again", "huggingface")
    again = transformers.ImageGPTForImageClassification.from_pretrained(tmp_path / "again")
    assert_same_state(theirs, again)

    bare = saved(tmp_path / "bare", head="Model")
    model, params, _ = ig.load(tmp_path / "bare")
    last_bd = model.apply({"params": params}, tokens_bt, method="features")[-1]
    expected_bd = bare(with_start(tokens_bt, 17)).last_hidden_state.mean(1)
    np.testing.assert_allclose(last_bd, expected_bd.detach(), rtol=1e-4, atol=1e-4)
    with pytest.raises(ig.InputError, match="no token head"):
        sample(model, params, image_keys(0, 1), tokens_bt[:1, :3])


def assert_same_state(one, other):
    one, other = one.state_dict(), other.state_dict()
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("biases", [False, True])
def test_transformers_opens_what_is_written(biases, tmp_path):
    theirs = saved(tmp_path / "hf", ODD, biases=biases)
    ig.Palette(np.random.default_rng(0).uniform(-1, 1, (9, 3))).save(tmp_path / "palette.npy")
    convert(tmp_path / "hf", tmp_path / "again", "huggingface", palette=tmp_path / "palette.npy")
    again = transformers.ImageGPTForCausalImageModeling.from_pretrained(tmp_path / "again")
    assert_same_state(theirs, again)

    processor = transformers.ImageGPTImageProcessorPil.from_pretrained(tmp_path / "again")
    images = np.random.default_rng(2).integers(0, 256, (2, 6, 6, 3), np.uint8)
    _, _, palette = ig.load(tmp_path / "again")
    np.testing.assert_array_equal(processor(list(images))["input_ids"], palette.encode(images))


@pytest.mark.parametrize("kind", ["sharded", "pickle", "sharded pickle", "with masks", "float16", "bfloat16"])
def test_every_file_format_reads_alike(kind, tmp_path):
    theirs = huggingface_model(biases=True)
    if "16" in kind:
        theirs = theirs.to(getattr(torch, kind))
    if kind == "sharded":
        theirs.save_pretrained(tmp_path, max_shard_size="20KB")
        assert (tmp_path / "model.safetensors.index.json").exists()
    else:
        theirs.save_pretrained(tmp_path)
    state = theirs.state_dict()
    if kind == "with masks":
        state |= {"transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16, dtype=torch.uint8)}
        state |= {"transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    if "pickle" in kind or "16" in kind or "masks" in kind:
        (tmp_path / "model.safetensors").unlink()
        torch.save(state, tmp_path / "pytorch_model.bin")
    if kind == "sharded pickle":
        (tmp_path / "pytorch_model.bin").unlink()
        files = {name: f"part-{i % 3}.bin" for i, name in enumerate(state)}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
        for file in set(files.values()):
            torch.save({name: state[name] for name in state if files[name] == file}, tmp_path / file)

    _, params, _ = ig.load(tmp_path)
    c_attn = state["transformer.h.1.attn.c_attn.weight"].float().numpy()
    kernels = [params["blocks"]["attention"][name]["kernel"][1].reshape(24, 24) for name in ("query", "key", "value")]
    np.testing.assert_array_equal(np.concatenate(kernels, axis=1), c_attn)
    np.testing.assert_array_equal(params["sos"], state["transformer.wte.weight"][17].float())
    np.testing.assert_array_equal(
        params["blocks"]["mlp"]["up"]["bias"][0], state["transformer.h.0.mlp.c_fc.bias"].float()
    )


def test_a_bert_model_has_a_zero_last_row_and_is_marked(tmp_path):
    theirs = saved(tmp_path / "hf")
    wte = theirs.state_dict()["transformer.wte.weight"].numpy().copy()
    wte[-1] = 0
    rewrite_tensors(tmp_path / "hf", **{"transformer.wte.weight": wte})
    model, params, _ = ig.load(tmp_path / "hf", objective="bert")
    assert model.config.objective == "bert"
    assert "sos" not in params
    convert(tmp_path / "hf", tmp_path / "again", "huggingface")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["igpt_objective"] == "bert"
    assert load_file(tmp_path / "again" / "model.safetensors")["transformer.wte.weight"][-1].max() == 0

    # transformers runs it once its causal masks are opened; the start token is then the masked token.
    again = transformers.ImageGPTForCausalImageModeling.from_pretrained(tmp_path / "again").eval()
    for block in again.transformer.h:
        block.attn.bias.fill_(True)
    tokens_bt = draw_tokens(TINY, 2)
    mask = np.random.default_rng(3).random(tokens_bt.shape) < 0.3
    logits_btv = again(torch.tensor(np.where(mask, 17, tokens_bt))).logits.detach()
    np.testing.assert_allclose(model.apply({"params": params}, tokens_bt, mask), logits_btv, rtol=1e-4, atol=1e-4)


CONFIG_REFUSALS = {
    "another network": ({"model_type": "gpt2"}, "model_type 'gpt2'; expected 'imagegpt'"),
    "scores by layer": ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True; .* False"),
    "cross-attention": ({"add_cross_attention": True}, "add_cross_attention=True"),
    "activation": ({"activation_function": "gelu"}, "activation_function='gelu'; .* 'quick_gelu'"),
    "MLP width": ({"n_inner": 48}, "n_inner=48; .* 96"),
    "positions": ({"n_positions": 15}, "15 positions; expected a square"),
    "no sizes": ({"n_layer": None, "n_head": None}, "lacks n_layer, n_head; copy config.json"),
    "fewer layers": ({"n_layer": 1}, r"unexpected h\.1\.attn\.c_attn\.bias.* and 2 more"),
    "more layers": ({"n_layer": 3}, r"lacks h\.2\.ln_1\.weight, .* expected the 34 tensors"),
    "width": ({"n_embd": 12, "n_inner": None}, r"has shape \(.*24.*\); its config .* make it \(.*12.*\)"),
    "objective": ({"igpt_objective": "bert"}, "says igpt_objective='bert', but the last row .* is not zero"),
}


@pytest.mark.parametrize("case", CONFIG_REFUSALS)
def test_a_config_of_another_network_is_refused(case, tmp_path):
    values, message = CONFIG_REFUSALS[case]
    saved(tmp_path)
    rewrite(tmp_path, "config.json", values)
    with pytest.raises(ig.InputError, match=message):
        open_weights(tmp_path)


def test_missing_and_extra_tensors_are_listed(tmp_path):
    saved(tmp_path)
    rewrite_tensors(tmp_path, **{"transformer.ln_f.weight": None, "transformer.h.0.crossattention.q": np.zeros(2)})
    with pytest.raises(ig.InputError, match=r"lacks ln_f\.weight and has the unexpected h\.0\.crossattention\.q; "):
        open_weights(tmp_path)


def test_a_missing_bias_is_not_taken_for_a_mask(tmp_path):
    saved(tmp_path, biases=True)
    rewrite_tensors(tmp_path, **{"transformer.h.1.attn.c_attn.bias": None})
    with pytest.raises(ig.InputError, match=r"lacks h\.1\.attn\.c_attn\.bias"):
        open_weights(tmp_path)


def test_incomplete_files_are_refused(tmp_path):
    huggingface_model().save_pretrained(tmp_path, max_shard_size="20KB")
    shard = max(tmp_path.glob("model-*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(ig.InputError, match=f"{shard.name} is damaged or cut short"):
        open_weights(tmp_path)
    shard.unlink()
    with pytest.raises(ig.InputError, match=f"{shard.name} is missing, and the index names it"):
        open_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"wte.weight": "../model.safetensors"}}')
    with pytest.raises(ig.InputError, match="names files outside its own directory"):
        open_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(ig.InputError, match="cannot be read as JSON"):
        open_weights(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(ig.InputError, match=r"config.json but no weights; expected model\.safetensors or"):
        open_weights(tmp_path)
