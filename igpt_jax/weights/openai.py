"""OpenAI's format: TensorFlow 1 checkpoints of the files `model.ckpt-N.{index,meta,data-*}`."""

import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from igpt_jax.config import ModelConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.progress import track
from igpt_jax.weights.layout import BIASES, Layout, Part, Stored, check_architecture, resolution_of
from igpt_jax.weights.stream import Weights

SCOPE = "model/"
PALETTE = "kmeans_centers.npy"
TENSORS_PER_SHARD = 8  # as many as a block has
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-(\d{5}))$")
_OPTIMIZER = re.compile(r"(_step|beta\d_power|/Adam(_\d)?)$", re.IGNORECASE)


def holds(path: pathlib.Path) -> bool:
    """Whether the path is a TensorFlow checkpoint: its prefix, its directory, or any one of its files."""
    return bool(_files(path))


def read(path: pathlib.Path) -> Weights:
    """Opens a checkpoint without reading the parameters.

    The config is inferred from the shapes of the tensors.  A model without `sos` has the "bert" objective.

    Raises:
      InputError: TensorFlow is not installed, or the files are incomplete, damaged, or of another kind of model.
    """
    prefix = _complete_prefix(path)
    tf = _tensorflow()
    try:
        reader = tf.train.load_checkpoint(str(prefix))
    except (ValueError, tf.errors.OpError) as error:
        raise InputError(f"{prefix}.index is damaged ({error}); download it again") from error
    stored = {}
    for name, shape in reader.get_variable_to_shape_map().items():
        if not _OPTIMIZER.search(name):
            stored[name.removeprefix(SCOPE)] = _stored(tf, reader, prefix, name, shape)
    config = _config(stored, prefix)
    layout = Layout(config, format="openai")
    layout.check(stored, prefix)
    palette = prefix.with_name(PALETTE)
    step = re.search(r"-(\d+)$", prefix.name)
    return Weights(
        config=config,
        read=functools.partial(layout.unpack, stored=stored),
        palette=Palette.load(palette) if palette.exists() else None,
        step=int(step[1]) if step else 0,
    )


def write(weights: Weights, directory: pathlib.Path) -> None:
    """Writes `model.ckpt-STEP`, which OpenAI's code can restore, and the palette as kmeans_centers.npy next to it.

    A tied token head is written as a copy of the token embedding.

    Raises:
      InputError: OpenAI's graph cannot represent the model, because the block is not the released one, a bias is not
        zero, there is no token head, or the class head does not read the final norm.
    """
    weights = weights.untied()
    config = weights.config
    check_architecture(config)
    if not config.token_head:
        raise InputError("this model has no token head, which OpenAI's graph needs; convert it with --to=huggingface")
    if config.use_bias:
        for part in (Part(path, layer) for path in BIASES for layer in range(config.layers)):
            if weights.read(part).any():
                raise InputError(
                    f"{part.path} of layer {part.layer} is not zero, and OpenAI's graph has no biases; "
                    f"convert it with --to=huggingface"
                )
    tf = _tensorflow()
    layout = Layout(config, format="openai")
    names, prefix = list(layout.parts), directory / f"model.ckpt-{weights.step}"
    shards: list[str] = []
    starts = range(0, len(names), TENSORS_PER_SHARD)
    for start in track(starts, "weights", len(starts), "file"):
        chosen = names[start : start + TENSORS_PER_SHARD]
        shards.append(f"{prefix}.part-{len(shards)}")
        tf.raw_ops.SaveV2(
            prefix=shards[-1],
            tensor_names=[SCOPE + name for name in chosen],
            shape_and_slices=[""] * len(chosen),
            tensors=[layout.pack(name, weights.read) for name in chosen],
        )
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=shards, destination_prefix=str(prefix), delete_old_dirs=False)
    if weights.palette:
        weights.palette.save(directory / PALETTE)


def _tensorflow() -> Any:
    try:
        from igpt_jax.data.tensorflow import tf
    except ImportError as error:
        raise InputError(f"OpenAI's checkpoints need TensorFlow ({error}); pip install tensorflow-cpu") from error
    return tf


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of all checkpoints in a directory, or of the one that a prefix or file names."""
    directory, prefix = (path, None) if path.is_dir() else (path.parent, _SUFFIX.sub("", path.name))
    files = directory.iterdir() if directory.is_dir() else []
    return [file for file in files if _SUFFIX.search(file.name) and prefix in (None, _SUFFIX.sub("", file.name))]


def _complete_prefix(path: pathlib.Path) -> pathlib.Path:
    """The prefix of the checkpoint, after checking that its index and all its shards exist."""
    files = {file.name: file for file in _files(path)}
    prefixes = sorted({_SUFFIX.sub("", name) for name in files})
    if len(prefixes) > 1:
        raise InputError(f"{path} holds the checkpoints {', '.join(prefixes)}; name one, as {path / prefixes[-1]}")
    (prefix,) = prefixes
    shards = max(int(match[2] or 1) for name in files if (match := _SUFFIX.search(name)))
    expected = [f"{prefix}.index", *(f"{prefix}.data-{i:05d}-of-{shards:05d}" for i in range(shards))]
    missing = [name for name in expected if name not in files]
    if missing:
        raise InputError(f"{prefix} lacks {len(missing)} of {len(expected)} files, such as {missing[0]}; download them")
    return next(iter(files.values())).with_name(prefix)


def _stored(tf: Any, reader: Any, prefix: pathlib.Path, name: str, shape: Sequence[int]) -> Stored:
    # Some checkpoints store MLP weights as (1, in, out), the kernel of a convolution of width 1.
    target = tuple(shape[1:] if name.endswith("/w") and len(shape) == 3 and shape[0] == 1 else shape)

    def read() -> np.ndarray:
        try:
            return reader.get_tensor(name).reshape(target)
        except (IndexError, tf.errors.OpError) as error:
            raise InputError(f"{prefix}: {name} cannot be read ({error}); download the checkpoint again") from error

    return Stored(target, read)


def _config(stored: Mapping[str, Stored], prefix: pathlib.Path) -> ModelConfig:
    for name, axes in (("wte", 2), ("wpe", 2), ("h0/attn/q_proj", 3)):
        if name not in stored or len(stored[name].shape) != axes:
            raise InputError(f"{prefix} has no {SCOPE}{name} with {axes} axes; give a checkpoint of an Image GPT")
    (vocabulary, width), context = stored["wte"].shape, stored["wpe"].shape[0]
    return ModelConfig(
        layers=sum(bool(re.fullmatch(r"h\d+/ln_1/g", name)) for name in stored),
        width=width,
        heads=stored["h0/attn/q_proj"].shape[0],
        resolution=resolution_of(context, prefix),
        vocabulary=vocabulary,
        classes=stored["clf/wclf"].shape[0] if "clf/wclf" in stored else 0,
        objective="ar" if "sos" in stored else "bert",
    )
