"""New images, and the rest of images of which the beginning is given, batch by batch over the mesh."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import tqdm
from jax.sharding import Mesh

from igpt_jax.errors import InputError
from igpt_jax.evaluate.forward import map_batches
from igpt_jax.generate.sample import Drawn, Sampler, fastest_window, image_keys, sample
from igpt_jax.model.image_gpt import ImageGPT, check_tokens


def complete(
    model: ImageGPT,
    params: dict,
    given_bt: np.ndarray,
    *,
    n: int,
    seed: int,
    mesh: Mesh,
    sampler: Sampler = Sampler(),  # noqa: B008 - frozen
    batch_size: int = 64,
    window: int | None = None,
) -> Drawn:
    """Draws n continuations of every image from its given first pixels.

    Args:
      given_bt: (b, t) int32, the first t pixels in raster order; t = 0 draws whole images.
      batch_size: images drawn at once; it does not change them.
      window: positions a pass, as `sample` explains; None takes `fastest_window`.
    Returns:
      (b, n, context) int32 tokens, beginning with what is given, and the passes they were drawn in.
    """
    check_tokens(model.config, given_bt)
    given_bt = np.repeat(given_bt, n, axis=0)
    if window is None:
        images = max(1, min(batch_size, len(given_bt)) // mesh.shape["data"])
        window = fastest_window(mesh.devices.flat[0].platform, images)

    def draw(rngs_b, batch):
        return sample(model, params, rngs_b, batch["given"], sampler, window)

    drawn = draw_batches(draw, {"given": given_bt}, seed, batch_size, mesh)
    return jax.tree.map(lambda x_bt: x_bt.reshape(-1, n, x_bt.shape[1]), drawn)


def draw_batches(
    draw: Callable[[jax.Array, dict], Any],
    arrays: dict[str, np.ndarray],
    seed: int,
    batch_size: int,
    mesh: Mesh,
) -> Any:
    """Calls `draw` with each image's key on batches of the arrays; long work shows its progress.

    Returns what it returns, as numpy arrays of all images.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size} must be at least 1")
    count = len(next(iter(arrays.values())))
    rngs_b, drawn = image_keys(seed, count), []
    arrays = {"number": np.arange(count)} | arrays
    batches = ({name: x[i : i + batch_size] for name, x in arrays.items()} for i in range(0, count, batch_size))
    with tqdm.tqdm(total=count, unit="image", dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:
        for result in map_batches(lambda batch: draw(rngs_b[batch["number"]], batch), batches, mesh):
            drawn.append(result)
            bar.update(len(jax.tree.leaves(result)[0]))
            if bar.disable and count > batch_size:
                done = min(count, len(drawn) * batch_size)
                print(f"{done} of {count} images drawn", file=sys.stderr, flush=True)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *drawn)
