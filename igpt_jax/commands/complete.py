"""Completes images: the rest of given rows by an autoregressive model, what a mask hides by a BERT model."""

import numpy as np
from absl import flags
from PIL import Image

from igpt_jax.commands.inputs import Loaded, load_model, load_tokens, output_directory, read_window
from igpt_jax.data.mask import read_mask
from igpt_jax.data.tokenizer import color_arrays
from igpt_jax.errors import InputError
from igpt_jax.files import make_directory
from igpt_jax.generate.complete import complete
from igpt_jax.generate.infill import hidden_square, infill
from igpt_jax.generate.sample import Sampler
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.report.sheets import plot_completions, plot_passes, save_drawing
from igpt_jax.storage import as_path, local_copy, mirrored

SHOWN = 6  # images in the sheet, and test images completed if no others are given


def main(options: flags.FlagValues) -> None:
    """Writes the completions as PNGs of the model's own size, a sheet for looking at, and completions.npz."""
    if options.n < 1:
        raise InputError(f"--n={options.n} must be at least 1")
    out, window = output_directory(options, "completions"), read_window(options)
    sampler = Sampler(options.temperature, options.top_k, options.top_p)
    loaded = load_model(options)
    hidden_t = hidden_positions(options, loaded)
    names, tokens_bt = load_tokens(options, loaded, SHOWN)
    hidden_bt = np.broadcast_to(hidden_t, tokens_bt.shape)
    settings = {
        "n": options.n,
        "seed": options.seed,
        "mesh": loaded.mesh,
        "sampler": sampler,
        "batch_size": options.batch_size,
    }
    if loaded.model.config.causal:
        given = int((~hidden_t).sum())
        drawn = complete(loaded.model, loaded.params, tokens_bt[:, :given], **settings, window=window)
        completions_bnt, passes = drawn.tokens, {"passes": drawn.passes}
        pace = f", {drawn.tokens_per_pass:.2f} tokens a pass"
    else:
        passes, pace = {}, ""
        rounds = {"rounds": options.rounds, "sweeps": options.sweeps}
        completions_bnt = infill(loaded.model, loaded.params, tokens_bt, hidden_bt, **settings, **rounds)

    if not is_primary_process():
        return
    with mirrored(out) as directory:
        make_directory(directory)
        for i, tokens_nt in enumerate(completions_bnt):
            for j, image in enumerate(loaded.palette.decode(tokens_nt)):
                Image.fromarray(image).save(directory / f"{i:05d}_{j}.png")
        shown = slice(SHOWN)
        shown_bt, hidden_bt = tokens_bt[shown], hidden_bt[shown]
        plot_completions(directory / "sheet.png", loaded.palette, shown_bt, completions_bnt[shown], hidden_bt)
        np.savez(
            directory / "completions.npz",
            names=names,
            tokens=completions_bnt,
            hidden=hidden_t,
            **color_arrays(loaded.palette),
            **passes,
        )
        if options.gif:
            shown_bt, passes_bt = (x_bnt[shown].reshape(-1, x_bnt.shape[-1]) for x_bnt in (drawn.tokens, drawn.passes))
            images = loaded.palette.decode(shown_bt)
            save_drawing(directory / "drawing.gif", images, passes_bt)
            plot_passes(directory / "passes.png", images, passes_bt)
    print(f"{options.n} completions each of {len(names)} images{pace}: {out}")


def hidden_positions(options: flags.FlagValues, loaded: Loaded) -> np.ndarray:
    """Returns which positions --rows, --pixels or --mask leave to be sampled, (context,) bool.

    Raises:
      InputError: the flags do not fit the model.
    """
    config = loaded.model.config
    if sum(value is not None for value in (options.rows, options.pixels, options.mask)) > 1:
        raise InputError("--rows, --pixels and --mask say the same in three ways; give one of them")
    if config.causal and options.mask is not None:
        raise InputError(
            "an ar model sees only the pixels before, so it cannot fill a mask; give --rows=N, "
            "or weights trained with objective.name=bert"
        )
    if not config.causal:
        if options.gif:
            raise InputError("--gif shows the raster order of an ar model; a bert model has none, leave it out")
        if options.mask is None and options.rows is None and options.pixels is None:
            return hidden_square(config.resolution).reshape(-1)
        if options.mask is not None:
            return read_mask(local_copy(as_path(options.mask)), config.resolution).reshape(-1)
    if options.pixels is not None:
        given = options.pixels
    else:
        given = config.resolution * (config.resolution // 2 if options.rows is None else options.rows)
    if not 0 < given < config.context:
        raise InputError(
            f"{given} pixels are given of {config.context} ({config.resolution} rows of {config.resolution}); "
            f"give 1 to {config.resolution - 1} rows"
        )
    return np.arange(config.context) >= given
