"""Compares sets of images with a reference, by any of several distances in the features of one network."""

import dataclasses
from typing import Any

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
KID_SUBSET = 1000  # images in each of KID's subsets, unless a set is smaller


@dataclasses.dataclass(frozen=True)
class Measures:
    """Which distances to compute, and their options.

    Raises:
      InputError: a metric is not in `METRICS`, or an option is out of range.
    """

    metrics: tuple[str, ...] = METRICS
    neighbors: int = 5  # k of precision, recall, density and coverage
    kid_subset: int = 0  # images in each of KID's subsets; 0: 1,000, or as many as the smallest set has
    infinity: bool = False  # also extrapolate the Fréchet distance to infinitely many images
    seed: int = 0  # of the random subsets

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise InputError(f"--metrics={name} is not known; choose from {', '.join(METRICS)}")
        if self.neighbors < 1 or self.kid_subset < 0 or self.kid_subset == 1:
            raise InputError(
                f"--neighbors={self.neighbors} must be 1 or more, and --kid_subset={self.kid_subset} 2 or more, or 0"
            )


def compare(
    sets: dict[str, np.ndarray], reference: np.ndarray | Statistics, network: FeatureNetwork, measures: Measures
) -> tuple[dict[str, Any], Statistics]:
    """Compares each set of images with the reference.

    Args:
      sets: images by the name of their set, (b, h, w, 3) uint8.
      reference: images likewise, or statistics from a file, with which only the Fréchet distance can be computed.
      network: computes the features.
      measures: the distances to compute.

    Returns:
      Values that JSON can hold: all that is needed to repeat the numbers (network, counts, options); and under the name
      of each set "fid", "kid" with its standard deviation over subsets, "precision", "recall", "density", "coverage".
      And the reference's statistics.

    Raises:
      InputError: the statistics are of another network, or `measures` need more than statistics; or a set has too few
        images.
    """
    if isinstance(reference, Statistics):
        _check_statistics(reference, network, measures)
        reference_bd, statistics = None, reference
    else:
        reference_bd = network.features(reference)
        statistics = Statistics.of(reference_bd, network.name)
    features = {name: network.features(images) for name, images in sets.items()}
    for features_bd in features.values():
        if features_bd.shape[1] != len(statistics.mean_d):
            raise InputError(
                f"the reference's statistics are of {len(statistics.mean_d)} features, but {network.name} has "
                f"{features_bd.shape[1]}; compare features of the same network"
            )
    all_features = [*features.values(), *([] if reference_bd is None else [reference_bd])]
    subset = measures.kid_subset or min(KID_SUBSET, *map(len, all_features))
    result: dict[str, Any] = {
        "network": network.name,
        "reference_images": statistics.images,
        "neighbors": measures.neighbors,
        "kid_subset": subset,
        "seed": measures.seed,
    }
    for name, features_bd in features.items():
        result[name] = {"images": len(features_bd)} | _distances(
            features_bd, reference_bd, statistics, measures, subset, network.name
        )
    return result, statistics


def _distances(
    features_bd: np.ndarray,
    reference_bd: np.ndarray | None,
    statistics: Statistics,
    measures: Measures,
    subset: int,
    network: str,
) -> dict[str, Any]:
    """Computes the distances of one set; `reference_bd` is None if only "fid" is asked for."""

    def distance_of(features_bd: np.ndarray) -> float:
        own = Statistics.of(features_bd, network)
        return frechet(own.mean_d, own.covariance_dd, statistics.mean_d, statistics.covariance_dd)

    distances: dict[str, Any] = {}
    if "fid" in measures.metrics:
        distances["fid"] = distance_of(features_bd)
        if measures.infinity:
            distances["fid_infinity"], distances["fid_by_images"] = frechet_at_infinity(
                features_bd, distance_of, measures.seed
            )
    if reference_bd is None:
        return distances
    if "kid" in measures.metrics:
        distances["kid"], distances["kid_deviation"] = kernel_distance(
            features_bd, reference_bd, seed=measures.seed, size=subset
        )
    if "prdc" in measures.metrics:
        distances |= precision_recall_density_coverage(features_bd, reference_bd, measures.neighbors)
    return distances


def _check_statistics(statistics: Statistics, network: FeatureNetwork, measures: Measures) -> None:
    if statistics.network and statistics.network != network.name:
        raise InputError(
            f"the reference's statistics are of {statistics.network!r}, but the features are of {network.name!r}; "
            "compare features of the same network"
        )
    if measures.metrics != ("fid",):
        raise InputError("a file of statistics has no single images, so it allows --metrics=fid alone")
