"""The third metric of scaling runs: the Fréchet distance of their samples from held-out images."""

import pathlib
from collections.abc import Callable
from typing import Any

import igpt_jax as ig
from experiments.held_out_loss import SQUARES, new_squares
from igpt_jax.config import ParallelConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.quality.compare import Measures, compare
from igpt_jax.quality.networks import open_network
from igpt_jax.quality.statistics import Statistics

SAMPLES = 1024  # of each run, since the distance depends on their number
BATCH_SIZE = 256


def frechet_distance(features: pathlib.Path, data: str, resolution: int) -> Callable[[pathlib.Path], dict[str, Any]]:
    """Returns a function that measures how far a run's samples are from held-out images, or from new squares.

    FID's network cannot judge images of 12x12 pixels.  The features here are those of one fixed Image GPT, which is
    trained with a seed of its own.  So these distances compare the runs with each other, and with nothing else.

    Args:
      features: the workdir of the run whose network computes the features.
      data: the data set of the runs.
      resolution: the side of their images.

    Returns:
      From the workdir of a run to its "frechet_distance" and the name of the network, "frechet_features".
    """
    network = open_network(features, "clean", make_mesh(ParallelConfig()), BATCH_SIZE)
    squares = data == SQUARES
    images = new_squares(resolution) if squares else ig.load_images(data, "test", resolution=resolution)[0]
    held_out = Statistics.of(network.features(images), network.name)

    def distance(workdir: pathlib.Path) -> dict[str, Any]:
        samples = ig.sample(ig.load(workdir), SAMPLES, batch_size=BATCH_SIZE)
        compared, _ = compare({"samples": samples}, held_out, network, Measures(("fid",)))
        return {"frechet_distance": compared["samples"]["fid"], "frechet_features": network.name}

    return distance
