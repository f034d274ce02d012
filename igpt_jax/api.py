"""The library in one call each: NumPy arrays in, NumPy arrays out, on all devices of this machine.

Every function takes a `Pretrained`, which `load` and `pretrain` return, and images of the model's own resolution.
`import igpt_jax as ig` offers them all.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.checks import check_squares
from igpt_jax.commands.run import Run
from igpt_jax.commands.train import train
from igpt_jax.config import DataConfig, ParallelConfig, ProbeConfig, RunConfig
from igpt_jax.data import kmeans
from igpt_jax.data.array import write_array
from igpt_jax.data.augment import augmentations
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import originals
from igpt_jax.data.sources import load_source
from igpt_jax.data.tokenizer import Tokenizer, load_tokenizer, save_tokenizer, tokenizer_file
from igpt_jax.errors import InputError
from igpt_jax.evaluate import likelihood as likelihoods
from igpt_jax.evaluate import probe as probes
from igpt_jax.evaluate.features import image_features
from igpt_jax.evaluate.forward import in_batches, map_batches
from igpt_jax.files import atomic_write, make_directory
from igpt_jax.generate.complete import complete as continue_tokens
from igpt_jax.generate.infill import hidden_square, infill
from igpt_jax.generate.sample import Sampler
from igpt_jax.generate.sample import sample as sample_tokens
from igpt_jax.model.image_gpt import ImageGPT, check_tokens
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.storage import absolute, as_path
from igpt_jax.weights.convert import write_weights
from igpt_jax.weights.load import MissingPalette, Pretrained
from igpt_jax.weights.stream import Weights, params_reader

# What `pretrain` sets where its caller does not: a model that two CPU cores train in minutes.
SMALL: dict[str, Any] = {
    "steps": 1000,
    "model": {"layers": 4, "width": 64, "heads": 2, "resolution": 16, "vocabulary": 64, "unroll": 4},
    "data": {"batch_size": 32},
    "optimizer": {"learning_rate": 3e-3},
}


def load_images(source: str, split: str = "train", *, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Loads every image of a source into memory, cropped to its central square and resized.

    Args:
      source: "digits", "emoji", "photographs", "blended_digits", any TFDS image set, or "folder:PATH".
      split: "train", "validation" or "test".
      resolution: side of the images, in pixels.

    Returns:
      Images (n, resolution, resolution, 3) uint8 RGB in 0..255, and labels (n,) int32, 0 where there are none.

    Raises:
      InputError: there is no such source or split, or an image cannot be decoded.
    """
    data = DataConfig(name=source, augmentation="none")
    _, central = augmentations(data, resolution)
    batches = list(originals(load_source(data, split), central, batch_size=256))
    return np.concatenate([b["image"] for b in batches]), np.concatenate([b["label"] for b in batches])


def fit_palette(images: np.ndarray, size: int = 64, *, seed: int = 0) -> Palette:
    """Fits a palette of k-means colors to every pixel of some images.

    Args:
      images: (n, h, w, 3) uint8 RGB in 0..255.
      size: number of colors.
      seed: of k-means.

    Raises:
      InputError: the images have another dtype or shape, or fewer distinct colors than `size`.

    Reference:
      Paper, section 3.2.
    """
    palette, _ = kmeans.fit(_rgb(images).reshape(-1, 3), size, seed=seed)
    return palette


def pretrain(
    images: np.ndarray | str,
    *,
    palette: Tokenizer | None = None,
    workdir: str | os.PathLike | None = None,
    **options: Any,
) -> Pretrained:
    """Pretrains an Image GPT on an array of images, or on a source by its name.

    An array is trained on as it is.  A tenth of its images becomes the test split, as with a folder.  A named source is
    augmented as on the command line.  Calling it again with the same workdir and options resumes an interrupted run.

    Args:
      images: (n, r, r, 3) uint8 RGB in 0..255, where r becomes the model's resolution; or a source as in `load_images`.
      palette: a palette or codec, which converts images to tokens; None fits a palette.
      workdir: keeps checkpoints, metrics and config, for the commands and for `load`; None keeps nothing.
      **options: options of the config that differ from `SMALL`, such as steps=2000 or model={"width": 128}; sections
        are dicts.  `igpt_jax.config` lists them.

    Returns:
      The trained model.

    Raises:
      InputError: an option or the images cannot work, or the workdir belongs to another run.

    Example:
      >>> model = ig.pretrain("digits", steps=500, model={"resolution": 12, "vocabulary": 16})
    """
    with contextlib.ExitStack() as stack:
        directory = absolute(as_path(workdir or stack.enter_context(tempfile.TemporaryDirectory())))
        values = _merged(SMALL, options)
        if palette:
            values = _merged(values, {"model": {"vocabulary": len(palette)}})
        if isinstance(images, str):
            config = RunConfig.from_dict(_merged(values, {"data": {"name": images}}))
            if palette:
                _write_palette(directory, palette)
        else:
            side = check_squares(_rgb(images)).shape[1] // (palette.scale if palette else 1)
            given = {"model": {"resolution": side}, "data": {"name": f"tokens:{directory}/tokens"}}
            config = RunConfig.from_dict(_merged(values, given))
            palette = palette or fit_palette(images, config.model.vocabulary, seed=config.seed)
            write_array(directory / "tokens", images, palette)
        run = Run.open(config, directory)
        with run.hold_workdir():
            _, params = train(run)
        return Pretrained(run.model, params, run.palette)


def sample(
    pretrained: Pretrained,
    n: int = 16,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
) -> np.ndarray:
    """Samples n new images.

    Image i is the same for every n and batch size.

    Args:
      pretrained: an autoregressive model.
      n: number of images.
      temperature: divides the logits; 0 takes the likeliest color.
      top_k: samples among the k likeliest colors; 0 among all.
      top_p: samples among the likeliest colors that together have probability p.
      seed: of the random numbers.
      batch_size: images sampled at once.

    Returns:
      (n, r, r, 3) uint8 RGB in 0..255.

    Raises:
      InputError: it is a BERT model, or an option is out of range.
    """
    _at_least_one("n", n)
    drawn = continue_tokens(
        pretrained.model,
        pretrained.params,
        np.zeros((1, 0), np.int32),
        n=n,
        seed=seed,
        mesh=_mesh(),
        sampler=Sampler(temperature, top_k, top_p),
        batch_size=batch_size,
    )
    return pretrained.palette.decode(drawn.tokens[0])


def complete(
    pretrained: Pretrained,
    images: np.ndarray,
    *,
    rows: int | None = None,
    mask: np.ndarray | None = None,
    n: int = 4,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    batch_size: int = 64,
) -> np.ndarray:
    """Completes images: an autoregressive model below given rows, a BERT model where a mask hides pixels.

    Args:
      pretrained: a model.
      images: (b, r, r, 3) uint8 RGB in 0..255, of the model's resolution.
      rows: rows given at the top, 1 to r - 1; None gives half of them.  For autoregressive models.
      mask: (r, r) bool, True where pixels are hidden; None hides the central square.  For BERT models.
      n: completions of each image.
      temperature: as in `sample`.
      top_k: as in `sample`.
      top_p: as in `sample`.
      seed: of the random numbers.
      batch_size: images sampled at once.

    Returns:
      (b, n, r, r, 3) uint8 RGB in 0..255; given pixels have their nearest colors of the palette.

    Raises:
      InputError: the images or the options do not fit the model.
    """
    _at_least_one("n", n)
    tokens_bt, config = _encode(pretrained, images), pretrained.model.config
    side = config.resolution
    settings: dict[str, Any] = {
        "n": n,
        "seed": seed,
        "mesh": _mesh(),
        "sampler": Sampler(temperature, top_k, top_p),
        "batch_size": batch_size,
    }
    if config.causal:
        if mask is not None:
            raise InputError("an autoregressive model sees earlier pixels only; give rows=, or use a BERT model")
        given = side // 2 if rows is None else rows
        if not 1 <= given < side:
            raise InputError(f"rows={given} of {side} are given; give 1 to {side - 1}")
        given_bt = tokens_bt[:, : given * side]
        tokens_bnt = continue_tokens(pretrained.model, pretrained.params, given_bt, **settings).tokens
    else:
        if rows is not None:
            raise InputError("a BERT model fills a mask; give mask= in place of rows=")
        hidden = hidden_square(side) if mask is None else np.asarray(mask)
        if hidden.shape != (side, side) or hidden.dtype != bool:
            raise InputError(f"the mask is {hidden.dtype} of shape {hidden.shape}; expected bool ({side}, {side})")
        hidden_bt = np.broadcast_to(hidden.reshape(-1), tokens_bt.shape)
        tokens_bnt = infill(pretrained.model, pretrained.params, tokens_bt, hidden_bt, **settings)
    decoded = pretrained.palette.decode(tokens_bnt.reshape(-1, config.context))
    return decoded.reshape(len(tokens_bt), n, *decoded.shape[1:])


def likelihood(pretrained: Pretrained, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """Computes -log p of every pixel, in nats: how much it surprises the model.

    Args:
      pretrained: a model.
      images: (b, r, r, 3) uint8 RGB in 0..255, of the model's resolution.
      batch_size: images in one forward pass.

    Returns:
      (b, r, r) float32; (b, t, t) for the t rows of a codec's codes.  The mean over an image is its nats per token.
      With an autoregressive model, the sum is -log p of the image, or of its codes.

    Raises:
      InputError: the images do not fit the model.
    """
    tokens_bt, side = _encode(pretrained, images), pretrained.model.config.resolution
    nats_bt = likelihoods.likelihood(
        pretrained.model, pretrained.params, tokens_bt, mesh=_mesh(), batch_size=batch_size
    )
    return nats_bt.reshape(-1, side, side)


def features(pretrained: Pretrained, images: np.ndarray, *, batch_size: int = 32) -> np.ndarray:
    """Computes the features of every layer, averaged over positions, in one forward pass.

    Args:
      pretrained: a model.
      images: (b, r, r, 3) uint8 RGB in 0..255, of the model's resolution.
      batch_size: images in one forward pass.

    Returns:
      (layers + 1, b, width) float32.

    Raises:
      InputError: the images do not fit the model.

    Reference:
      Paper, section 2.4.
    """
    tokens_bt = _encode(pretrained, images)
    batches = in_batches({"tokens": tokens_bt}, batch_size)
    function = functools.partial(image_features, pretrained.model, pretrained.params)
    return np.concatenate(list(map_batches(function, batches, _mesh()))).swapaxes(0, 1)


def probe(
    pretrained: Pretrained,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    config: ProbeConfig = ProbeConfig(),  # noqa: B008 - frozen
    seed: int = 0,
) -> probes.ProbeResult:
    """Measures what a linear classifier reads from each layer.  Test labels take part in no choice.

    Args:
      pretrained: a model.
      train_images: (n, r, r, 3) uint8 RGB in 0..255, of the model's resolution.
      train_labels: (n,) integers from 0 on.
      test_images: as the training images.
      test_labels: as the training labels.
      config: of the probe.
      seed: draws the held-out images.

    Returns:
      Accuracy by layer, in per cent, and the best layer, which held-out training images choose.

    Raises:
      InputError: images and labels do not fit each other or the model.

    Reference:
      Paper, section 3.1.
    """
    train_labels_b, test_labels_b = np.asarray(train_labels), np.asarray(test_labels)
    return probes.probe(
        features(pretrained, train_images),
        train_labels_b,
        features(pretrained, test_images),
        test_labels_b,
        classes=int(max(train_labels_b.max(initial=0), test_labels_b.max(initial=0))) + 1,
        config=config,
        seed=seed,
    )


def save(pretrained: Pretrained, path: str | os.PathLike, *, to: str = "igpt") -> None:
    """Writes a model to a new directory, which `load` reads again.

    Args:
      pretrained: a model.
      path: the directory to create.
      to: "igpt" (a workdir), "huggingface" (for transformers) or "openai" (for the released TensorFlow code).

    Raises:
      InputError: the path exists, there is no such format, or the format cannot hold the model.
    """
    palette = None if isinstance(pretrained.palette, MissingPalette) else pretrained.palette
    read = params_reader(pretrained.params)
    write_weights(Weights(config=pretrained.model.config, read=read, palette=palette, step=0), path, to)


def export(pretrained: Pretrained, path: str | os.PathLike, *, what: str = "features") -> None:
    """Writes a program with its parameters as StableHLO, which runs on CPUs, GPUs and TPUs without this package.

    In any process with JAX, `jax.export.deserialize(bytearray(open(path, "rb").read())).call(x)` runs it, for batches
    of any size.

    "features" and "logits" take tokens (b, context) int32.  The first returns (layers + 1, b, width) float32, as the
    function `features` does, and the second (b, context, colors) float32, the logits of each position.  "sample" takes
    seeds (b,) uint32 and returns the tokens (b, context) int32 of one image for each seed.

    Args:
      pretrained: a model.
      path: the file to write, atomically.
      what: the program: "features", "logits" or "sample".

    Raises:
      InputError: there is no such program, or the model cannot run it.
    """
    # Blockwise attention runs on every platform.
    model = ImageGPT(dataclasses.replace(pretrained.model.config, attention="blockwise"))
    variables, context = {"params": pretrained.params}, model.config.context

    def sample_seeds(seeds_b: jax.Array) -> jax.Array:
        rngs_b, nothing_bt = jax.vmap(jax.random.key)(seeds_b), jnp.zeros((seeds_b.shape[0], 0), jnp.int32)
        return sample_tokens(model, pretrained.params, rngs_b, nothing_bt).tokens

    programs: dict[str, Callable[[jax.Array], Any]] = {
        "features": lambda tokens_bt: model.apply(variables, tokens_bt, method="features"),
        "logits": lambda tokens_bt: model.apply(variables, tokens_bt),
        "sample": sample_seeds,
    }
    if what not in programs:
        raise InputError(f"there is no program {what!r}; choose one of {', '.join(programs)}")
    (b,) = jax.export.symbolic_shape("b")
    x = jax.ShapeDtypeStruct((b,), jnp.uint32) if what == "sample" else jax.ShapeDtypeStruct((b, context), jnp.int32)
    exported = jax.export.export(jax.jit(programs[what]), platforms=("cpu", "cuda", "tpu"))(x)
    with atomic_write(as_path(path)) as partial:
        partial.write_bytes(exported.serialize())


def _mesh() -> Mesh:
    return make_mesh(ParallelConfig())


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise InputError(f"{name}={value} must be at least 1")


def _rgb(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise InputError(f"images are {images.dtype} of shape {images.shape}; expected uint8 (b, r, r, 3) in 0..255")
    return images


def _encode(pretrained: Pretrained, images: np.ndarray) -> np.ndarray:
    side = pretrained.model.config.resolution * pretrained.palette.scale
    tokens_bt = pretrained.palette.encode(check_squares(_rgb(images), side))
    check_tokens(pretrained.model.config, tokens_bt)
    return tokens_bt


def _merged(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Both, where `others` count more; sections, which are dicts, are merged likewise."""
    both = {key: _merged(values[key], others[key]) for key in values if isinstance(others.get(key), dict)}
    return values | others | both


def _write_palette(directory: pathlib.Path, palette: Tokenizer) -> None:
    """Makes the palette that of a workdir, which keeps the one it has."""
    path = tokenizer_file(directory)
    if path is None:
        make_directory(directory)
        save_tokenizer(palette, directory)
    elif load_tokenizer(path) != palette:
        raise InputError(f"{directory} was made with another palette; use that one or another workdir")
