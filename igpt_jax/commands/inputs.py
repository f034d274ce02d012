"""What the generating commands have in common: weights from any place, and images to start from."""

import dataclasses
import itertools
import pathlib
import sys
from typing import Any

import numpy as np
from absl import flags
from jax.sharding import Mesh

from igpt_jax.config import DataConfig, ModelConfig, ParallelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.storage import as_path
from igpt_jax.types import Params
from igpt_jax.weights.load import load


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model that runs, with its palette, on a mesh of all devices."""

    model: ImageGPT
    params: Params
    palette: Any  # a Palette, or what stands for a missing one and says so
    mesh: Mesh


def load_model(options: flags.FlagValues) -> Loaded:
    """Loads the model that --workdir or --weights names.

    Raises:
      InputError: both are given, or neither; or there is no model.
    """
    if bool(options.workdir) == bool(options.weights):
        raise InputError("give either --workdir=DIR or --weights=PATH (a workdir, Hugging Face or OpenAI weights)")
    mesh = make_mesh(ParallelConfig())
    model, params, palette = load(options.workdir or options.weights, palette=options.palette, mesh=mesh)
    if options.dtype:
        model = ImageGPT(dataclasses.replace(model.config, dtype=options.dtype))
    say_slow_dtype(model.config, mesh)
    return Loaded(model, params, palette, mesh)


def say_slow_dtype(config: ModelConfig, mesh: Mesh) -> None:
    """Says in one line that bfloat16 is for accelerators, where it runs on a CPU."""
    if config.dtype == "bfloat16" and mesh.devices.flat[0].platform == "cpu" and is_primary_process():
        print("bfloat16 is for accelerators; on this CPU, float32 is faster", file=sys.stderr, flush=True)


def load_tokens(options: flags.FlagValues, loaded: Loaded, count: int) -> tuple[list[str], np.ndarray]:
    """Reads the images of --images, or else the first `count` test images of the workdir, as tokens.

    Image files are cropped to their central square, as in evaluation, and resampled with the filter of the workdir, or
    by area without one.

    Returns:
      The names of the images, and their tokens, (b, context) int32.
    """
    from igpt_jax.commands.run import Run, saved_config  # these need TensorFlow, which drawing new images does not
    from igpt_jax.data.augment import augmentations
    from igpt_jax.data.folder import open_images
    from igpt_jax.data.pipeline import examples

    workdir = as_path(options.workdir) if options.workdir else None
    if not options.images:
        if not workdir:
            raise InputError("--images=PATH is missing; name an image or a folder of images")
        run = Run(saved_config(workdir), workdir)
        shown = itertools.islice(run.examples(run.test_source), -(-count // run.config.evaluate.batch_size))
        tokens_bt = np.concatenate([batch["tokens"] for batch in shown])[:count]
        return [f"test image {i}" for i in range(len(tokens_bt))], tokens_bt
    resolution = loaded.model.config.resolution * loaded.palette.scale
    source = open_images(as_path(options.images), resolution)
    trained = saved_config(workdir).data if workdir else DataConfig()
    data = dataclasses.replace(trained, name=f"folder:{options.images}", augmentation="none")
    _, evaluation = augmentations(data, resolution)
    batches = examples(source, loaded.palette, evaluation, batch_size=options.batch_size)
    tokens_bt = np.concatenate([batch["tokens"] for batch in batches])
    return [source.name(row) for row in source.rows], tokens_bt


def read_window(options: flags.FlagValues) -> int | None:
    """Returns --window as a number, or None for auto.

    Raises:
      InputError: it is anything else.
    """
    if options.window == "auto":
        return None
    if not options.window.isdecimal() or int(options.window) < 1:
        raise InputError(f"--window={options.window} is no number of positions; give 1 (one by one) or more, or auto")
    return int(options.window)


def output_directory(options: flags.FlagValues, name: str) -> pathlib.Path:
    """Returns --out, or a directory of that name in the workdir.

    Raises:
      InputError: there is neither.
    """
    if not options.out and not options.workdir:
        raise InputError("--out=DIR is missing; name a directory for the pictures")
    return as_path(options.out) if options.out else as_path(options.workdir) / name
