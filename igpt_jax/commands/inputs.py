"""What the generating commands have in common: weights from any place, and images to start from."""

import dataclasses
import pathlib

import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import ParallelConfig
from igpt_jax.data.files import read_images
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.weights.load import load


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model that runs, with its palette, on a mesh of all devices."""

    model: ImageGPT
    params: dict
    palette: Palette
    mesh: Mesh


def load_model(options) -> Loaded:
    """Loads what --workdir or --weights names.  Raises InputError where it is not exactly one of them."""
    if bool(options.workdir) == bool(options.weights):
        raise InputError("give either --workdir=DIR or --weights=PATH (a work dir, Hugging Face or OpenAI weights)")
    mesh = make_mesh(ParallelConfig())
    model, params, palette = load(options.workdir or options.weights, palette=options.palette, mesh=mesh)
    if options.dtype:
        model = ImageGPT(dataclasses.replace(model.config, dtype=options.dtype))
    return Loaded(model, params, palette, mesh)


def load_tokens(options, loaded: Loaded, count: int) -> tuple[list[str], np.ndarray]:
    """The images of --images, or else the first `count` test images of the work dir, as tokens.

    Returns their names, and (b, context) int32.
    """
    if options.images:
        names, images = read_images(pathlib.Path(options.images), loaded.model.config.resolution)
        return names, loaded.palette.encode(images)
    if not options.workdir:
        raise InputError("--images=PATH is missing; name an image or a folder of images")
    from igpt_jax.commands.run import Run, saved_config  # needs TensorFlow, which reading image files does not

    workdir = pathlib.Path(options.workdir)
    run = Run(saved_config(workdir), workdir)
    tokens_bt = next(run.examples(run.test))["tokens"][:count]
    return [f"test image {i}" for i in range(len(tokens_bt))], tokens_bt


def output_directory(options, name: str) -> pathlib.Path:
    """--out, or a directory of that name in the work dir.  Raises InputError where there is neither."""
    if not options.out and not options.workdir:
        raise InputError("--out=DIR is missing; name a directory for the pictures")
    return pathlib.Path(options.out or pathlib.Path(options.workdir) / name)
