"""Every asked-for distance between sets of images and a reference, in the features of one network."""

import dataclasses

import numpy as np

from igpt_jax.errors import InputError
from igpt_jax.quality.distances import (
    frechet,
    frechet_at_infinity,
    kernel_distance,
    precision_recall_density_coverage,
)
from igpt_jax.quality.networks import FeatureNetwork
from igpt_jax.quality.statistics import Statistics

METRICS = ("fid", "kid", "prdc")
KID_SUBSET = 1000


@dataclasses.dataclass(frozen=True)
class Measures:
    """Which distances, and their options."""

    metrics: tuple[str, ...] = METRICS
    neighbors: int = 5  # k of precision, recall, density and coverage
    kid_subset: int = 0  # images in each of KID's subsets; 0: 1,000, or as many as the smallest set has
    infinity: bool = False  # also the Fréchet distance at infinitely many images
    seed: int = 0

    def __post_init__(self):
        for name in self.metrics:
            if name not in METRICS:
                raise InputError(f"--metrics={name} is not known; choose from {', '.join(METRICS)}")


def compare(
    sets: dict[str, np.ndarray], reference: np.ndarray | Statistics, network: FeatureNetwork, measures: Measures
) -> dict:
    """Compares each set with the reference.

    Args:
      sets: by name, (b, h, w, 3) uint8.
      reference: images alike, or the statistics of a file, which allow the Fréchet distance alone.
    Returns:
      All that is needed to repeat the numbers, as JSON holds it: the network, the counts, the options; and for each set
      "fid", "kid" with its deviation over subsets, "precision", "recall", "density", "coverage".

    Raises InputError where the statistics are of another network, or are not enough.
    """
    if isinstance(reference, Statistics):
        _check_statistics(reference, network, measures)
        reference_bd, statistics = None, reference
    else:
        reference_bd = network.features(reference)
        statistics = Statistics.of(reference_bd, network.name)
    features = {name: network.features(images) for name, images in sets.items()}
    known = [*features.values(), *([] if reference_bd is None else [reference_bd])]
    subset = measures.kid_subset or min(KID_SUBSET, *map(len, known))
    found = {
        "network": network.name,
        "reference_images": statistics.images,
        "neighbors": measures.neighbors,
        "kid_subset": subset,
        "seed": measures.seed,
    }
    for name, features_bd in features.items():
        found[name] = {"images": len(features_bd)} | _distances(
            features_bd, reference_bd, statistics, measures, subset, network.name
        )
    return found


def _distances(features_bd, reference_bd, statistics, measures, subset, network):
    def distance_of(features_bd):
        own = Statistics.of(features_bd, network)
        return frechet(own.mean_d, own.covariance_dd, statistics.mean_d, statistics.covariance_dd)

    found = {}
    if "fid" in measures.metrics:
        found["fid"] = distance_of(features_bd)
        if measures.infinity:
            found["fid_infinity"], found["fid_by_images"] = frechet_at_infinity(features_bd, distance_of, measures.seed)
    if "kid" in measures.metrics:
        found["kid"], found["kid_deviation"] = kernel_distance(
            features_bd, reference_bd, seed=measures.seed, size=subset
        )
    if "prdc" in measures.metrics:
        found |= precision_recall_density_coverage(features_bd, reference_bd, measures.neighbors)
    return found


def _check_statistics(statistics, network, measures):
    if statistics.network and statistics.network != network.name:
        raise InputError(
            f"the reference's statistics are of {statistics.network!r}, but the features are of {network.name!r}; "
            "only equal ones compare"
        )
    if measures.metrics != ("fid",):
        raise InputError("a file of statistics has no single images, so it allows --metrics=fid alone")
