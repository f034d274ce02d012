"""The held-out loss of a finished run: on held-out images or, if it learned from random squares, on new squares."""

import functools
from collections.abc import Callable

import numpy as np

import igpt_jax as ig
from experiments.runs import Result, nats_per_token, result_directory

SQUARES = "photographs"  # the data set of random squares
BATCH_SIZE = 256


def held_out_loss(data: str, resolution: int, *, searching: bool = False) -> Callable[[Result], float]:
    """Returns a function that reads or measures the held-out loss of a finished run.

    For most data sets it is the loss that the run measured itself.  A run on `photographs` never sees a square twice,
    so its loss on new squares of the training photographs is the expected loss of its next training step: what recipes
    and sizes are compared by.  Its own test images, which are other parts of the photographs, are another distribution.
    There the loss soon stops falling, since ten photographs do not teach what is in an eleventh.

    Args:
      data: the data set of the run.
      resolution: the side of its images.
      searching: whether options are being searched.  Then the new squares are others than those of the results.

    Returns:
      From a finished run to nats per token.
    """
    if data != SQUARES:
        return nats_per_token
    squares = new_squares(resolution, searching=searching)

    def measure(result: Result) -> float:
        workdir = result_directory(result.job, result.directory, result.seed)
        return float(ig.likelihood(ig.load(workdir), squares, batch_size=BATCH_SIZE).mean())

    return measure


@functools.cache  # an experiment asks for them before each of its measurements
def new_squares(resolution: int, *, searching: bool = False) -> np.ndarray:
    """Cuts 2,048 squares of the training photographs that no run trains on, (2048, r, r, 3) uint8 RGB in 0..255."""
    images, _ = ig.load_images(SQUARES, "train", resolution=resolution)
    return np.array_split(images, 2)[int(searching)]
