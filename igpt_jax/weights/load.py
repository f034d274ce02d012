"""Loads a model that is ready to run, from a path in any format."""

import dataclasses
import os
import pathlib
from typing import NamedTuple, NoReturn

from jax.sharding import Mesh

from igpt_jax.config import ParallelConfig
from igpt_jax.data.tokenizer import Tokenizer, load_tokenizer
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import check_model, make_mesh, with_fitting_attention
from igpt_jax.storage import as_path, in_bucket, local_copy
from igpt_jax.types import Params
from igpt_jax.weights import huggingface, openai, workdir
from igpt_jax.weights.stream import Weights, check_finite

FORMATS = {"igpt": workdir, "huggingface": huggingface, "openai": openai}


class MissingPalette:
    """Takes the place of a palette that is missing; any use of it raises an InputError that says how to supply one."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InputError(
            f"{self._path} has no palette, which {name} needs; load it with palette='kmeans_centers.npy', "
            f"or put that file next to the checkpoint"
        )


class Pretrained(NamedTuple):
    """A model that is ready to run: `model, params, palette = ig.load(path)`."""

    model: ImageGPT
    params: Params  # float32
    palette: Tokenizer | MissingPalette  # converts images to the model's tokens


def load(
    path: str | os.PathLike,
    *,
    palette: Tokenizer | str | os.PathLike | None = None,
    objective: str | None = None,
    mesh: Mesh | None = None,
) -> Pretrained:
    """Loads a model from a workdir, a Hugging Face directory or an OpenAI checkpoint.

    Args:
      path: one of four.  A workdir: its newest undamaged checkpoint, or the best if the run keeps that.
        WORKDIR/checkpoints/STEP: exactly this checkpoint.  A directory with Hugging Face's config.json.  A TensorFlow
        checkpoint: its prefix, its directory, or any one of its files.
      palette: a palette or codec, or the path of its file; replaces the one of the files.
      objective: "ar" or "bert" to accept only models of that objective; None accepts both.
      mesh: the devices to load onto; each parameter goes directly to its sharding.  None uses all devices.

    Returns:
      The module, its parameters (float32), and the palette that turns images into its tokens.

    Raises:
      InputError: there is no such model, its files are incomplete or damaged, a parameter is NaN or infinite, the
        objective is another, or the palette does not fit the vocabulary.
    """
    weights = open_weights(path, palette)
    if objective not in (None, weights.config.objective):
        raise InputError(
            f"{path} holds {weights.config.objective!r} weights, with{'' if weights.config.causal else 'out'} a start "
            f"vector, but objective={objective!r} was requested; give the path of {objective!r} weights"
        )
    mesh = mesh or make_mesh(ParallelConfig())
    check_model(config := with_fitting_attention(weights.config, mesh), mesh)
    params = weights.place(mesh)
    check_finite(params, path)
    return Pretrained(ImageGPT(config), params, weights.palette or MissingPalette(as_path(path)))


def open_weights(path: str | os.PathLike, palette: Tokenizer | str | os.PathLike | None = None) -> Weights:
    """Detects the format and opens the files; parameters are read later, on demand.

    Args:
      path: as in `load`.
      palette: as in `load`.

    Returns:
      The weights, with the palette of the files or the one given; `Weights.palette` is None if there is neither.

    Raises:
      InputError: there is no such model, or the palette does not fit the vocabulary.
    """
    path = as_path(path)
    if in_bucket(path) and not workdir.holds(path):
        path = local_copy(path, openai.PALETTE)
    module = next((module for module in FORMATS.values() if module.holds(path)), None)
    if module is None:
        raise InputError(
            f"no checkpoint in {path}; train one with: python -m igpt_jax train, or name a Hugging Face directory "
            f"(with config.json) or an OpenAI checkpoint (model.ckpt-N)"
        )
    weights = module.read(path)
    if palette is not None:
        palette = load_tokenizer(palette) if isinstance(palette, str | os.PathLike) else palette
        weights = dataclasses.replace(weights, palette=palette)
    if weights.palette is not None and len(weights.palette) != weights.config.vocabulary:
        raise InputError(
            f"the palette has {len(weights.palette)} colors, and {path} was trained on {weights.config.vocabulary}; "
            f"give the model's own with palette="
        )
    return weights
