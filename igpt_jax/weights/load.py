"""One call from a path to a model that runs."""

import dataclasses
import os
import pathlib

from jax.sharding import Mesh

from igpt_jax.config import ParallelConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import check_model, make_mesh
from igpt_jax.weights import huggingface, openai, workdir
from igpt_jax.weights.stream import Weights, check_finite

FORMATS = {"igpt": workdir, "huggingface": huggingface, "openai": openai}


class MissingPalette:
    """Stands where no palette was found: any use of it raises InputError, which says how to supply one."""

    def __init__(self, path: pathlib.Path):
        self._path = path

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        raise InputError(
            f"{self._path} has no palette, which {name} needs; load it with palette='kmeans_centers.npy', "
            f"or put that file beside the checkpoint"
        )


def load(
    path: str | os.PathLike,
    *,
    palette: Palette | str | os.PathLike | None = None,
    objective: str | None = None,
    mesh: Mesh | None = None,
) -> tuple[ImageGPT, dict, Palette | MissingPalette]:
    """Makes a model from what is at the path: a work dir, a Hugging Face directory or an OpenAI checkpoint.

    Args:
      path: a work dir (its newest whole checkpoint, or the best where it keeps that), WORKDIR/checkpoints/STEP (that
        very one), a directory with Hugging Face's config.json, or a TensorFlow checkpoint: its prefix, its directory,
        or any one of its files.
      palette: the colors, or a .npy file of them; overrides what the files say.
      objective: "ar" or "bert", where only one will do; None takes either.
      mesh: where the parameters are placed, each in its sharding as it is read; all devices if not given.
    Returns:
      The module, its parameters (float32), and the palette that its tokens are made with.
    Raises:
      InputError: nothing is there, the files are incomplete or damaged, hold NaN or infinity, or another model than
        asked for.
    """
    weights = open_weights(path, palette)
    if objective not in (None, weights.config.objective):
        raise InputError(
            f"{path} holds {weights.config.objective!r} weights, with{'' if weights.config.causal else 'out'} a start "
            f"vector, and objective={objective!r} was asked for; give the path of {objective!r} weights"
        )
    model, mesh = ImageGPT(weights.config), mesh or make_mesh(ParallelConfig())
    check_model(weights.config, mesh)
    params = weights.place(mesh)
    check_finite(params, path)
    return model, params, weights.palette or MissingPalette(pathlib.Path(path))


def open_weights(path: str | os.PathLike, palette: Palette | str | os.PathLike | None = None) -> Weights:
    """Recognizes the format by looking, and opens the files without reading the parameters.

    Raises:
      InputError: nothing is there, or a palette of another size than the model's vocabulary.
    """
    path = pathlib.Path(path)
    form = next((form for form in FORMATS.values() if form.holds(path)), None)
    if form is None:
        raise InputError(
            f"no checkpoint in {path}; train one with: python -m igpt_jax train, or name a Hugging Face directory "
            f"(with config.json) or an OpenAI checkpoint (model.ckpt-N)"
        )
    weights = form.read(path)
    if palette is not None:
        palette = palette if isinstance(palette, Palette) else Palette.load(palette)
        weights = dataclasses.replace(weights, palette=palette)
    if weights.palette is not None and len(weights.palette) != weights.config.vocabulary:
        raise InputError(
            f"the palette has {len(weights.palette)} colors, and {path} was trained on {weights.config.vocabulary}; "
            f"give its own with palette="
        )
    return weights
