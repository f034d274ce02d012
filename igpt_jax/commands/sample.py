"""Draws new images."""

import numpy as np
from absl import flags
from PIL import Image

from igpt_jax.commands.inputs import load_model, output_directory, read_window
from igpt_jax.data.tokenizer import color_arrays
from igpt_jax.errors import InputError
from igpt_jax.files import make_directory
from igpt_jax.generate.complete import complete
from igpt_jax.generate.sample import Sampler
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.report.sheets import plot_passes, save_drawing, save_samples
from igpt_jax.storage import mirrored

SHOWN = 12  # images in passes.png


def main(options: flags.FlagValues) -> None:
    """Writes n PNGs of the model's own size, a grid for looking at, and samples.npz with the tokens."""
    if options.n < 1:
        raise InputError(f"--n={options.n} must be at least 1")
    out, window = output_directory(options, "samples"), read_window(options)
    sampler = Sampler(options.temperature, options.top_k, options.top_p)
    loaded = load_model(options)
    drawn = complete(
        loaded.model,
        loaded.params,
        np.zeros((1, 0), np.int32),
        n=options.n,
        seed=options.seed,
        mesh=loaded.mesh,
        sampler=sampler,
        batch_size=options.batch_size,
        window=window,
    )
    if not is_primary_process():
        return
    tokens_bt, passes_bt = drawn.tokens[0], drawn.passes[0]
    images = loaded.palette.decode(tokens_bt)
    with mirrored(out) as directory:
        make_directory(directory)
        for i, image in enumerate(images):
            Image.fromarray(image).save(directory / f"{i:05d}.png")
        save_samples(directory / "grid.png", images)
        np.savez(directory / "samples.npz", tokens=tokens_bt, passes=passes_bt, **color_arrays(loaded.palette))
        if options.gif:
            save_drawing(directory / "drawing.gif", images, passes_bt)
            plot_passes(directory / "passes.png", images[:SHOWN], passes_bt[:SHOWN])
    print(f"{options.n} images, {drawn.tokens_per_pass:.2f} tokens a pass: {out}")
