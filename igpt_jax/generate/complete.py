"""Sampling of new images, and completion of images from their first pixels, in batches over the mesh."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.evaluate.forward import in_batches, map_batches
from igpt_jax.generate.sample import Drawn, Sampler, fastest_window, image_keys, sample
from igpt_jax.model.image_gpt import ImageGPT, check_tokens
from igpt_jax.parallel.mesh import batch_ways
from igpt_jax.progress import progress
from igpt_jax.types import Batch, HostBatch, Params


def complete(
    model: ImageGPT,
    params: Params,
    given_bt: np.ndarray,
    *,
    n: int,
    seed: int,
    mesh: Mesh,
    sampler: Sampler = Sampler(),  # noqa: B008 - frozen
    batch_size: int = 64,
    window: int | None = None,
) -> Drawn:
    """Samples n continuations of every image from its given first pixels.

    Args:
      model: an autoregressive model.
      params: its parameters.
      given_bt: (b, t) int32, the first t pixels in raster order; t = 0 samples whole images.
      n: continuations of each image.
      seed: of the random numbers; each continuation has its own key, see `image_keys`.
      mesh: devices, over which the images are split.
      sampler: how a color is sampled from its logits.
      batch_size: images sampled at once, at least 1; it does not change the images.
      window: positions per pass, as `sample` explains; None chooses `fastest_window`.

    Returns:
      The sampled images, with arrays of shape (b, n, context).

    Raises:
      InputError: `given_bt` are not tokens of the model, the model cannot sample, or an option is out of range.
    """
    check_tokens(model.config, given_bt)
    given_bt = np.repeat(given_bt, n, axis=0)
    if window is None:
        images = max(1, min(batch_size, len(given_bt)) // batch_ways(mesh))
        window = fastest_window(mesh.devices.flat[0].platform, images)

    def draw(rngs_b: jax.Array, batch: Batch) -> Drawn:
        return sample(model, params, rngs_b, batch["given"], sampler, window)

    drawn = draw_batches(draw, {"given": given_bt}, seed, batch_size, mesh)
    return jax.tree.map(lambda x_bt: x_bt.reshape(-1, n, x_bt.shape[1]), drawn)


def draw_batches(
    draw: Callable[[jax.Array, Batch], Any],
    arrays: HostBatch,
    seed: int,
    batch_size: int,
    mesh: Mesh,
) -> Any:
    """Calls `draw` on batches of images, each image with its own key, and reports the progress.

    Args:
      draw: a function from keys (b,) and a batch to a tree of arrays (b, ...).
      arrays: inputs of all images; the first axis of every array is the image.
      seed: of the keys.
      batch_size: images per call of `draw`, at least 1.
      mesh: devices, over which a batch is split.

    Returns:
      The results of `draw` for all images, as numpy arrays.

    Raises:
      InputError: `batch_size` is below 1.
    """
    count = len(next(iter(arrays.values())))
    rngs_b, results = image_keys(seed, count), []
    batches = in_batches({"number": np.arange(count)} | arrays, batch_size)
    with progress("sampling", count, "image") as advance:
        for result in map_batches(lambda batch: draw(rngs_b[batch["number"]], batch), batches, mesh):
            results.append(result)
            advance(len(jax.tree.leaves(result)[0]))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)
