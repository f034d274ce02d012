"""Hugging Face ImageGPT directories: config.json, weights as safetensors or torch pickles, and the palette.

In this format, the token embedding of a model with v colors has v + 1 rows.  The last row of an "ar" model is `sos`.
That of a "bert" model is zero, which is how masked tokens are embedded.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from igpt_jax.config import ModelConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.progress import track
from igpt_jax.weights.layout import BIASES, Layout, Part, Stored, check_architecture, resolution_of
from igpt_jax.weights.stream import Weights
from igpt_jax.weights.tensor_files import open_tensors

SCOPE, UNSCOPED = "transformer.", ("lm_head.", "score.")
LARGEST = 2**20  # the greatest size that a config may have, of any kind
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# What the config must say for the network to be an Image GPT; the values are also the defaults of transformers.
ARCHITECTURE = {
    "activation_function": "quick_gelu",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": False,
}
_BUFFER = re.compile(r"\.attn\.(masked_)?bias$")  # the causal mask, which transformers before 4.41 saved


def holds(path: pathlib.Path) -> bool:
    """Whether the path is a directory in this format."""
    return (path / "config.json").is_file()


def read(path: pathlib.Path) -> Weights:
    """Opens a directory without reading the parameters, biases and `sos` aside.

    The model has biases if any is not zero, a token head if there is an lm_head, and the "bert" objective if the last
    row of the token embedding is zero.

    Raises:
      InputError: the model has another architecture, or the files are incomplete, damaged, or do not fit the config.
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
    use_bias = any(unpack(part).any() for part in parts)
    config = dataclasses.replace(config, objective=objective, use_bias=use_bias)
    return Weights(config=config, read=unpack, palette=_palette(path), step=0)


def write(weights: Weights, directory: pathlib.Path) -> None:
    """Writes config.json, model.safetensors and, if there is a palette, preprocessor_config.json.

    A tied token head is written as a copy of the token embedding without its last row, which is not a color.

    Raises:
      InputError: the block is not the released one, or the class head does not read the final norm.
    """
    weights = weights.untied()
    check_architecture(weights.config)
    layout = Layout(weights.config, format="huggingface")
    _write_json(directory / "config.json", _config_json(weights.config))
    if isinstance(weights.palette, Palette):
        _write_json(
            directory / "preprocessor_config.json", _preprocessor_json(weights.palette, weights.config.resolution)
        )
    names = {name: name if name.startswith(UNSCOPED) else SCOPE + name for name in layout.parts}
    shapes = {names[name]: layout.shape(name) for name in names}
    tensors = (layout.pack(name, weights.read) for name in track(names, "weights", len(names), "tensor"))
    _write_safetensors(directory / "model.safetensors", shapes, tensors)


def _config(values: dict[str, Any], stored: Mapping[str, Stored], path: pathlib.Path) -> ModelConfig:
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
        actual = values.get(key, value)
        if actual != value and (key, actual) != ("n_inner", None):  # transformers' n_inner=None means 4 * n_embd
            raise InputError(f"{where} has {key}={actual!r}; expected {value!r}, as in Image GPT; use other weights")
    return ModelConfig(
        layers=values["n_layer"],
        width=values["n_embd"],
        heads=values["n_head"],
        resolution=resolution_of(values["n_positions"], where),
        vocabulary=values["vocab_size"] - 1,
        classes=stored["score.weight"].shape[0] if "score.weight" in stored else 0,
        token_head="lm_head.weight" in stored,
    )


def _open_model(path: pathlib.Path) -> dict[str, Stored]:
    first = next((path / name for name in FILES if (path / name).exists()), None)
    if first is None:
        raise InputError(f"{path} has config.json but no weights; expected {' or '.join(FILES)}")
    files = [first]
    if first.suffix == ".json":
        index = _read_json(first).get("weight_map")
        names: list[Any] = list(index.values()) if type(index) is dict else [index]
        if not all(type(name) is str and pathlib.PurePath(name).name == name for name in names):
            raise InputError(f"{first} names files outside its own directory; download it again")
        files = [path / name for name in sorted(set(names))]
    stored: dict[str, Stored] = {}
    for file in files:
        if not file.exists():
            raise InputError(f"{file} is missing, and the index names it; download it")
        stored |= open_tensors(file)
    return {name.removeprefix(SCOPE): tensor for name, tensor in stored.items() if not _BUFFER.search(name)}


def _palette(path: pathlib.Path) -> Palette | None:
    preprocessor = path / "preprocessor_config.json"
    clusters = _read_json(preprocessor).get("clusters") if preprocessor.exists() else None
    try:
        return None if clusters is None else Palette(np.array(clusters, np.float32))
    except (TypeError, ValueError) as error:
        raise InputError(f"the clusters of {preprocessor} are not a palette: {error}") from error


def _config_json(config: ModelConfig) -> dict[str, Any]:
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


def _preprocessor_json(palette: Palette, resolution: int) -> dict[str, Any]:
    return {
        "image_processor_type": "ImageGPTImageProcessor",
        "clusters": palette.colors.tolist(),
        "do_color_quantize": True,
        "do_normalize": True,
        "do_resize": True,
        "resample": 2,  # bilinear
        "size": {"height": resolution, "width": resolution},
    }


def _write_safetensors(
    path: pathlib.Path, shapes: Mapping[str, tuple[int, ...]], tensors: Iterable[np.ndarray]
) -> None:
    """Writes float32 tensors one by one, whereas the writer of safetensors needs them all in memory at once."""
    header: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            file.write(np.ascontiguousarray(tensor, "<f4").data)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON ({error}); download it again") from error
    if type(values) is not dict:
        raise InputError(f"{path} holds a {type(values).__name__}; expected a JSON object; download it again")
    return values


def _write_json(path: pathlib.Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")
