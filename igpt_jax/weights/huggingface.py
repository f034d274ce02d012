"""Hugging Face ImageGPT directories: config.json, weights as safetensors or torch pickles, and the palette.

A model of v colors has v + 1 rows of token embedding there: the last is `sos`, or zeros in a "bert" model, where the
masked token's embedding is zero.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
import struct

import numpy as np

from igpt_jax.config import ModelConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.weights.layout import BIASES, Layout, Part, check_architecture, resolution_of
from igpt_jax.weights.stream import Weights, progress
from igpt_jax.weights.tensor_files import open_tensors

SCOPE, UNSCOPED = "transformer.", ("lm_head.", "score.")
LARGEST = 2**20  # of any size in a config
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# What the config must say for the network to be ours; the values are also transformers' defaults.
ARCHITECTURE = {
    "activation_function": "quick_gelu",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": False,
}
_BUFFER = re.compile(r"\.attn\.(masked_)?bias$")  # the causal mask, kept by transformers before 4.41


def holds(path: pathlib.Path) -> bool:
    """Whether the path is a directory of this format."""
    return (path / "config.json").is_file()


def read(path: pathlib.Path) -> Weights:
    """Opens a directory; biases count only where one is not zero, and weights without lm_head have no token head.

    Raises:
      InputError: another architecture, or files that are incomplete, damaged, or do not fit the config.
    """
    values, stored = _read_json(path / "config.json"), _open_model(path)
    config = _config(values, stored, path)
    layout = Layout(config, format="huggingface")
    layout.check(stored, path)
    unpack = functools.partial(layout.unpack, stored=stored)
    parts = [Part(bias, layer) for bias in BIASES for layer in range(config.layers)]
    objective = "ar" if unpack(Part("sos", None)).any() else "bert"
    marked = values.get("igpt_objective", objective)
    if marked != objective:
        raise InputError(
            f"{path}/config.json says igpt_objective={marked!r}, but the last row of wte.weight is "
            f"{'not ' * (objective == 'ar')}zero, which makes it {objective!r}; correct the config"
        )
    settings = {"objective": objective, "use_bias": any(unpack(part).any() for part in parts)}
    return Weights(config=dataclasses.replace(config, **settings), read=unpack, palette=_palette(path), step=0)


def write(weights: Weights, directory: pathlib.Path) -> None:
    """Writes config.json, model.safetensors and, where there is a palette, preprocessor_config.json.

    A tied token head is written as a copy of the embedding's rows of colors: the last row has no logit.

    Raises:
      InputError: the block is not the released one, or the class head does not read the final norm.
    """
    weights = weights.untied()
    check_architecture(weights.config)
    layout = Layout(weights.config, format="huggingface")
    _write_json(directory / "config.json", _config_json(weights.config))
    if weights.palette:
        _write_json(directory / "preprocessor_config.json", _preprocessor_json(weights))
    names = {name: name if name.startswith(UNSCOPED) else SCOPE + name for name in layout.parts}
    shapes = {names[name]: layout.shape(name) for name in names}
    tensors = (layout.pack(name, weights.read) for name in progress(names))
    _write_safetensors(directory / "model.safetensors", shapes, tensors)


def _config(values, stored, path):
    where = path / "config.json"
    if values.get("model_type") != "imagegpt":
        raise InputError(f"{where} is of model_type {values.get('model_type')!r}; expected 'imagegpt'")
    sizes = ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")
    missing = [key for key in sizes if key not in values]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; copy config.json from the directory of the weights")
    for key in sizes:
        if type(values[key]) is not int or not 0 < values[key] <= LARGEST:
            raise InputError(f"{where} has {key}={values[key]!r}; expected a whole number from 1 to {LARGEST}")
    required = ARCHITECTURE | {"n_inner": 4 * values["n_embd"]}
    for key, value in required.items():
        found = values.get(key, value)
        if found != value and (key, found) != ("n_inner", None):
            raise InputError(
                f"{where} has {key}={found!r}; Image GPT, and so this package, has {value!r}: "
                f"the weights cannot be used here without training them anew"
            )
    return ModelConfig(
        layers=values["n_layer"],
        width=values["n_embd"],
        heads=values["n_head"],
        resolution=resolution_of(values["n_positions"], where),
        vocabulary=values["vocab_size"] - 1,
        classes=stored["score.weight"].shape[0] if "score.weight" in stored else 0,
        token_head="lm_head.weight" in stored,
    )


def _open_model(path):
    found = next((path / name for name in FILES if (path / name).exists()), None)
    if found is None:
        raise InputError(f"{path} has config.json but no weights; expected {' or '.join(FILES)}")
    files = [found]
    if found.suffix == ".json":
        index = _read_json(found).get("weight_map")
        names = list(index.values()) if type(index) is dict else [index]
        if not all(type(name) is str and pathlib.PurePath(name).name == name for name in names):
            raise InputError(f"{found} names no files of its own directory; download it again")
        files = [path / name for name in sorted(set(names))]
    stored = {}
    for file in files:
        if not file.exists():
            raise InputError(f"{file} is missing, and the index names it; download it")
        stored |= open_tensors(file)
    return {name.removeprefix(SCOPE): tensor for name, tensor in stored.items() if not _BUFFER.search(name)}


def _palette(path):
    preprocessor = path / "preprocessor_config.json"
    clusters = _read_json(preprocessor).get("clusters") if preprocessor.exists() else None
    try:
        return None if clusters is None else Palette(np.array(clusters, np.float32))
    except (TypeError, ValueError) as error:
        raise InputError(f"the clusters of {preprocessor} are no palette: {error}") from error


def _config_json(config):
    head = "ImageClassification" if config.classes else "CausalImageModeling"
    labels = {str(i): f"LABEL_{i}" for i in range(config.classes)}
    return {
        "architectures": [f"ImageGPTFor{head}" if config.classes or config.token_head else "ImageGPTModel"],
        "model_type": "imagegpt",
        "igpt_objective": config.objective,
        "n_layer": config.layers,
        "n_embd": config.width,
        "n_head": config.heads,
        "n_inner": None,
        "n_positions": config.context,
        "vocab_size": config.vocabulary + 1,
        **ARCHITECTURE,
        "reorder_and_upcast_attn": False,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "dtype": "float32",
        **({"id2label": labels, "label2id": {label: int(i) for i, label in labels.items()}} if labels else {}),
    }


def _preprocessor_json(weights):
    side = {"height": weights.config.resolution, "width": weights.config.resolution}
    return {
        "image_processor_type": "ImageGPTImageProcessor",
        "clusters": weights.palette.colors.tolist(),
        "do_color_quantize": True,
        "do_normalize": True,
        "do_resize": True,
        "resample": 2,  # bilinear
        "size": side,
    }


def _write_safetensors(path, shapes, tensors):
    """Writes float32 tensors as they come; the package's own writer wants them all in memory."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            file.write(np.ascontiguousarray(tensor, "<f4"))


def _read_json(path):
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); download it again") from error
    if type(values) is not dict:
        raise InputError(f"{path} holds a {type(values).__name__}; expected an object of keys; download it again")
    return values


def _write_json(path, values):
    path.write_text(json.dumps(values, indent=2) + "\n")
