"""What finished scaling runs are measured by beside their own evaluation: new squares, and samples.

Every measurement is kept in the workdir of its run, and is not made again.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import igpt_jax as ig
from experiments.tables import write_json
from igpt_jax.config import ParallelConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.progress import track
from igpt_jax.quality.compare import Measures, compare
from igpt_jax.quality.networks import open_network
from igpt_jax.quality.statistics import Statistics

NEW_SQUARES, DISTANCE = "new_squares.json", "frechet.json"
SAMPLES = 1024  # of each run, since the distance depends on their number
BATCH_SIZE = 256


def nats_on_new_squares(
    workdirs: Sequence[pathlib.Path], data: str, resolution: int, *, searching: bool = False
) -> list[float]:
    """Measures the loss on squares of the training photographs that no run has seen.

    A run on random squares never sees one twice, so this is the expected loss of its next training step: the quantity
    that scaling laws are about.  The test images, which are other parts of the photographs, are another distribution.

    Args:
      workdirs: of the runs.
      data: a source of random squares.
      resolution: the side of their images.
      searching: whether learning rates are being searched.  Then the squares are others than those of the results.

    Returns:
      Nats per token, in the order of `workdirs`.
    """

    def prepare() -> Callable[[pathlib.Path], dict[str, Any]]:
        images, _ = ig.load_images(data, "train", resolution=resolution)
        squares = np.array_split(images, 2)[int(searching)]

        def nats(workdir: pathlib.Path) -> dict[str, Any]:
            mean = ig.likelihood(ig.load(workdir), squares, batch_size=BATCH_SIZE).mean()
            return {"images": len(squares), "nats_per_token": float(mean)}

        return nats

    return [kept["nats_per_token"] for kept in _measured(workdirs, NEW_SQUARES, prepare)]


def frechet_distances(
    workdirs: Sequence[pathlib.Path], features: pathlib.Path, data: str, resolution: int
) -> list[float]:
    """Samples from finished runs, and measures how far the samples are from the test images.

    FID's network cannot judge images of 12x12 pixels.  The features here are those of one fixed Image GPT, which is
    trained with a seed of its own.  So these distances compare the runs with each other, and with nothing else.

    Args:
      workdirs: of the runs.
      features: the workdir of the run whose network computes the features.
      data: the data set of all runs.
      resolution: the side of their images.

    Returns:
      The distances, in the order of `workdirs`.
    """

    def prepare() -> Callable[[pathlib.Path], dict[str, Any]]:
        network = open_network(features, "clean", make_mesh(ParallelConfig()), BATCH_SIZE)
        images, _ = ig.load_images(data, "test", resolution=resolution)
        held_out = Statistics.of(network.features(images), network.name)

        def distance(workdir: pathlib.Path) -> dict[str, Any]:
            samples = ig.sample(ig.load(workdir), SAMPLES, batch_size=BATCH_SIZE)
            return compare({"samples": samples}, held_out, network, Measures(("fid",)))

        return distance

    return [kept["samples"]["fid"] for kept in _measured(workdirs, DISTANCE, prepare)]


def _measured(
    workdirs: Sequence[pathlib.Path], name: str, prepare: Callable[[], Callable[[pathlib.Path], dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Reads a measurement of every run, after it was made for those that lack it."""
    if missing := [workdir for workdir in workdirs if not (workdir / name).exists()]:
        measure = prepare()
        for workdir in track(missing, name.removesuffix(".json"), len(missing), "run"):
            write_json(workdir / name, measure(workdir))
    return [json.loads((workdir / name).read_text()) for workdir in workdirs]
