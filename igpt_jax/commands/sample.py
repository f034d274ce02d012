"""Draws new images from the newest checkpoint of a work dir."""

import pathlib

import numpy as np
from PIL import Image

from igpt_jax.commands.run import Run
from igpt_jax.config import RunConfig
from igpt_jax.errors import InputError
from igpt_jax.generate.sample import Sampler, image_keys, sample
from igpt_jax.parallel.processes import fetch, is_first
from igpt_jax.report import plot_samples
from igpt_jax.weights.load import load


def main(config: RunConfig, workdir: pathlib.Path, options) -> None:
    """Writes n PNGs of the model's own size, a grid for looking at, and samples.npz with the tokens."""
    if config:
        Run.open(config, workdir)
    if options.n < 1:
        raise InputError(f"--n={options.n} must be at least 1")
    sampler = Sampler(options.temperature, options.top_k, options.top_p)
    model, params, palette = load(workdir)
    nothing_bt = np.zeros((options.n, 0), np.int32)
    tokens_bt = fetch(sample(model, params, image_keys(options.seed, options.n), nothing_bt, sampler))
    if not is_first():
        return
    images = palette.decode(tokens_bt)
    out = pathlib.Path(options.out or workdir / "samples")
    out.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(out / f"{i:05d}.png")
    plot_samples(out / "grid.png", images)
    np.savez(out / "samples.npz", tokens=tokens_bt, colors=palette.colors)
    print(f"{options.n} images: {out}")
