"""Scores images: how likely a model finds them, and which pixels surprise it."""

import json

import numpy as np
from absl import flags

from igpt_jax.commands.inputs import load_model, load_tokens, output_directory
from igpt_jax.data.tokenizer import color_arrays
from igpt_jax.evaluate.likelihood import likelihood
from igpt_jax.files import make_directory
from igpt_jax.parallel.processes import is_primary_process
from igpt_jax.report.sheets import plot_surprise
from igpt_jax.storage import mirrored

SHOWN = 24  # images in the picture, and test images scored if no others are given


def main(options: flags.FlagValues) -> None:
    """Prints the nats per token of every image; writes scores.json, nats.npz and surprise.png."""
    out = output_directory(options, "scores")
    loaded = load_model(options)
    names, tokens_bt = load_tokens(options, loaded, SHOWN)
    nats_bt = likelihood(loaded.model, loaded.params, tokens_bt, mesh=loaded.mesh, batch_size=options.batch_size)

    if not is_primary_process():
        return
    scores = {name: float(nats) for name, nats in zip(names, nats_bt.mean(axis=1), strict=True)}
    images = loaded.palette.decode(tokens_bt[:SHOWN])
    with mirrored(out) as directory:
        make_directory(directory)
        (directory / "scores.json").write_text(json.dumps(scores, indent=2) + "\n")
        np.savez(directory / "nats.npz", names=names, tokens=tokens_bt, nats=nats_bt, **color_arrays(loaded.palette))
        side = loaded.model.config.resolution
        plot_surprise(directory / "surprise.png", images, nats_bt[:SHOWN].reshape(-1, side, side))
    for name, nats in scores.items():
        print(f"{nats:.4f} nats/token  {name}")
    print(f"mean {nats_bt.mean():.4f} nats/token of {len(names)} images: {out}")
