"""The released TensorFlow 1 checkpoints, `model.ckpt-N.{index,meta,data-*}`, and new ones under the same names."""

import functools
import pathlib
import re

from igpt_jax.config import ModelConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.weights.layout import BIASES, Layout, Part, Stored, check_architecture, resolution_of
from igpt_jax.weights.stream import Weights, progress

SCOPE = "model/"
PALETTE = "kmeans_centers.npy"
TENSORS_PER_SHARD = 8  # those of one block
_SUFFIX = re.compile(r"\.(index|meta|data-\d{5}-of-(\d{5}))$")
_OPTIMIZER = re.compile(r"(_step|beta\d_power|/Adam(_\d)?)$", re.IGNORECASE)


def holds(path: pathlib.Path) -> bool:
    """Whether the path is a TensorFlow checkpoint: its prefix, its directory, or any one of its files."""
    return bool(_files(path))


def read(path: pathlib.Path) -> Weights:
    """Opens a checkpoint; the sizes are those of its tensors, and a model without `sos` is a "bert" one.

    Raises:
      InputError: TensorFlow is not installed, or the files are incomplete, damaged, or of another model.
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
    beside = prefix.with_name(PALETTE)
    step = re.search(r"-(\d+)$", prefix.name)
    return Weights(
        config=config,
        read=functools.partial(layout.unpack, stored=stored),
        palette=Palette.load(beside) if beside.exists() else None,
        step=int(step[1]) if step else 0,
    )


def write(weights: Weights, directory: pathlib.Path) -> None:
    """Writes `model.ckpt-STEP`, which the original graph restores, and the palette as kmeans_centers.npy beside it.

    A tied token head is written as a copy of the embedding.

    Raises:
      InputError: the model has another block than the released one, a bias that is not zero, no token head, or a class
        head that does not read the final norm: the original graph could not hold it.
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
    names, prefix, shards = list(layout.parts), directory / f"model.ckpt-{weights.step}", []
    for start in progress(range(0, len(names), TENSORS_PER_SHARD)):
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


def _tensorflow():
    try:
        from igpt_jax.data.tensorflow import tf
    except ImportError as error:
        raise InputError(f"OpenAI's checkpoints need TensorFlow ({error}); pip install tensorflow-cpu") from error
    return tf


def _files(path):
    directory, prefix = (path, None) if path.is_dir() else (path.parent, _SUFFIX.sub("", path.name))
    files = directory.iterdir() if directory.is_dir() else []
    return [file for file in files if _SUFFIX.search(file.name) and prefix in (None, _SUFFIX.sub("", file.name))]


def _complete_prefix(path):
    """The checkpoint's prefix, once its index and all of its shards are there."""
    files = {file.name: file for file in _files(path)}
    prefixes = sorted({_SUFFIX.sub("", name) for name in files})
    if len(prefixes) > 1:
        raise InputError(f"{path} holds the checkpoints {', '.join(prefixes)}; name one, as {path / prefixes[-1]}")
    (prefix,) = prefixes
    shards = max(int(_SUFFIX.search(name)[2] or 1) for name in files)
    expected = [f"{prefix}.index", *(f"{prefix}.data-{i:05d}-of-{shards:05d}" for i in range(shards))]
    missing = [name for name in expected if name not in files]
    if missing:
        raise InputError(f"{prefix} lacks {len(missing)} of {len(expected)} files, such as {missing[0]}; download them")
    return next(iter(files.values())).with_name(prefix)


def _stored(tf, reader, prefix, name, shape):
    # The released code once kept MLP weights as (1, in, out), the kernels of a convolution.
    shape = tuple(shape[1:] if name.endswith("/w") and len(shape) == 3 and shape[0] == 1 else shape)

    def read():
        try:
            return reader.get_tensor(name).reshape(shape)
        except (IndexError, tf.errors.OpError) as error:
            raise InputError(f"{prefix}: {name} cannot be read ({error}); download the checkpoint again") from error

    return Stored(shape, read)


def _config(stored, prefix):
    for name, axes in (("wte", 2), ("wpe", 2), ("h0/attn/q_proj", 3)):
        if name not in stored or len(stored[name].shape) != axes:
            raise InputError(f"{prefix} has no {SCOPE}{name} of {axes} axes; give a checkpoint of an Image GPT")
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
