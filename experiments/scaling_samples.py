"""The third metric of scaling runs: the Fréchet distance of their samples from held-out images.

FID's network cannot judge images of 12x12 pixels.  The features here are those of one fixed Image GPT, which is trained
with a seed of its own.  So these distances compare the runs with each other, and with nothing else.
"""

import json
import pathlib
from collections.abc import Sequence

import igpt_jax as ig
from experiments.tables import write_json
from igpt_jax.config import ParallelConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.progress import track
from igpt_jax.quality.compare import Measures, compare
from igpt_jax.quality.networks import open_network
from igpt_jax.quality.statistics import Statistics

DISTANCE = "frechet.json"  # in the workdir of a run
SAMPLES = 1024  # of each run, since the distance depends on their number
BATCH_SIZE = 256


def frechet_distances(
    workdirs: Sequence[pathlib.Path], features: pathlib.Path, data: str, resolution: int
) -> list[float]:
    """Samples from finished runs, and measures how far the samples are from the test images.

    A distance is kept in the workdir of its run, and is not measured again.

    Args:
      workdirs: of the runs.
      features: the workdir of the run whose network computes the features.
      data: the data set of all runs.
      resolution: the side of their images.

    Returns:
      The distances, in the order of `workdirs`.
    """
    if missing := [workdir for workdir in workdirs if not (workdir / DISTANCE).exists()]:
        network = open_network(features, "clean", make_mesh(ParallelConfig()), BATCH_SIZE)
        images, _ = ig.load_images(data, "test", resolution=resolution)
        held_out = Statistics.of(network.features(images), network.name)
        for workdir in track(missing, "samples", len(missing), "run"):
            samples = ig.sample(ig.load(workdir), SAMPLES, batch_size=BATCH_SIZE)
            write_json(workdir / DISTANCE, compare({"samples": samples}, held_out, network, Measures(("fid",))))
    return [json.loads((workdir / DISTANCE).read_text())["samples"]["fid"] for workdir in workdirs]
