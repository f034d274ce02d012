"""Opens a page in the browser on which a model completes pictures."""

import importlib.metadata
import itertools
import math
import os
import signal
import sys
import tempfile

import numpy as np
from absl import flags

from igpt_jax.commands.run import Run, saved_config
from igpt_jax.config import ParallelConfig
from igpt_jax.data.records import Source
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.demo.player import Player
from igpt_jax.errors import InputError
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.progress import track
from igpt_jax.storage import as_path
from igpt_jax.weights import workdir
from igpt_jax.weights.load import MissingPalette, load

EXAMPLES = 12  # held-out images to try
COMPARED = 20_000  # training images to compare completions with


def main(options: flags.FlagValues) -> None:
    """Loads the models and serves the page until it is interrupted.

    Raises:
      InputError: there is no model, gradio is not installed, or the port is taken.
    """
    paths = [path for path in (options.workdir, *(options.weights or "").split(",")) if path]
    if not paths:
        raise InputError("give --workdir=DIR, or --weights=PATH (Hugging Face or OpenAI weights)")
    try:
        importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        raise InputError("the page needs gradio; pip install 'igpt_jax[demo]', or pip install gradio") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the uploads are deleted then too
    with tempfile.TemporaryDirectory() as uploads:
        # gradio reads these variables when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
        import gradio as gr

        from igpt_jax.demo.page import CSS, build

        page = build({path: load_player(path, options.palette) for path in paths})
        try:
            page.queue(max_size=16, default_concurrency_limit=1).launch(
                server_name=options.host,
                server_port=options.port,
                inbrowser=options.browser,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=CSS,
                max_file_size="10mb",
                max_threads=8,
            )
        except OSError as error:
            raise InputError(f"port {options.port} of {options.host} is taken; give another --port") from error
        print(f"http://{options.host}:{options.port} completes pictures; Ctrl-C ends it", flush=True)
        page.block_thread()


def load_player(path: str, palette: str | None) -> Player:
    """Loads a model, and from a workdir also images to try and to compare with.

    Args:
      path: a workdir, or weights in any format.
      palette: the palette to use in place of the model's own, or None.

    Raises:
      InputError: there is no model, or it has no palette or no token head.
    """
    mesh = make_mesh(ParallelConfig())
    pretrained = load(path, palette=palette, mesh=mesh)
    model, own_palette = pretrained.model, pretrained.palette
    if isinstance(own_palette, MissingPalette):
        raise InputError(f"{path} has no palette; give --palette=kmeans_centers.npy")
    if not model.config.token_head:
        raise InputError(f"{path} has no token head, so it cannot complete pictures; name a model that has one")
    held_out = train = np.zeros((0, *[model.config.resolution * own_palette.scale] * 2, 3), np.uint8)
    if workdir.holds(as_path(path)):
        try:
            run = Run(saved_config(as_path(path)), as_path(path))
            held_out = _first(run, run.test_source, own_palette)
            held_out = held_out[np.linspace(0, len(held_out) - 1, EXAMPLES).astype(int)]
            train = _first(run, run.train_source, own_palette)
        except InputError as error:
            print(f"no images to try with {path}: {error}", file=sys.stderr)
    return Player(model, pretrained.params, own_palette, mesh, held_out, train)


def _first(run: Run, source: Source, palette: Tokenizer) -> np.ndarray:
    """The first images of a source as the model sees them, at most `COMPARED`: (n, r, r, 3) uint8."""
    count = min(COMPARED, len(source))
    batches = itertools.islice(run.examples(source), math.ceil(count / run.config.evaluate.batch_size))
    tracked = track(batches, "reading images", count, "image", lambda batch: len(batch["tokens"]))
    return np.concatenate([palette.decode(batch["tokens"]) for batch in tracked])[:count]
