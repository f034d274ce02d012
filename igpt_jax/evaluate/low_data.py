"""Probes fitted to a few labeled images of every class, as the paper's table 4 has them."""

import dataclasses

import numpy as np

from igpt_jax.config import ProbeConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.features import Rows
from igpt_jax.evaluate.linear_probe import fit, score
from igpt_jax.evaluate.probe import check_pair


@dataclasses.dataclass(frozen=True)
class LowDataResult:
    """Accuracies in per cent over random subsets of the labeled images."""

    labels_per_class: int
    accuracies: tuple[float, ...]  # on the test images, one a subset; BERT: the mean over the masks

    @property
    def accuracy(self) -> float:
        """The mean over the subsets."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Their sample standard deviation (divided by one less than their number)."""
        return float(np.std(self.accuracies, ddof=1))


def low_data(
    train_features_lbd: np.ndarray,
    train_labels_b: np.ndarray,
    test_features_lbd: np.ndarray,
    test_labels_b: np.ndarray,
    *,
    labels_per_class: int,
    layers: tuple[int, ...],
    penalty: float,
    classes: int,
    subsets: int = 5,
    seed: int = 0,
    masks: int = 1,
) -> LowDataResult:
    """Fits probes to a few images of every class, and scores them on all test images.

    A held-out part of so few images chooses nothing well, so layer and penalty are given.  Take them from the probe of
    all training images, whose held-out part chose them, as the paper takes the layer.  That probe has seen more labels,
    but none of the test images.  Features are standardized with those of the subset.

    Args:
      train_features_lbd: (l, b, d) floats, one row for each image.
      train_labels_b: (b,) integers in [0, classes).
      test_features_lbd: the same of the test images, in `masks` passes.
      test_labels_b: (b,) integers in [0, classes).
      labels_per_class: images of each class in a subset.
      layers: layers that the probe reads side by side.
      penalty: `l2 * images` of the probe of all images.  It is the coefficient of `sum(weights_dc**2) / 2` beside the
        summed loss, and thus the same prior on the weights for any number of images (`1 / C` in scikit-learn).
      classes: number of classes.
      subsets: number of random subsets.
      seed: subset i is drawn by (seed, i).
      masks: passes over the test images, each under other masks of a BERT model.

    Returns:
      The accuracy of each subset.

    Raises:
      InputError: a class has too few images, or as in `probe`.
    """
    check_pair(train_features_lbd, train_labels_b, test_features_lbd, test_labels_b, classes)
    train, test = Rows.all(train_features_lbd, train_labels_b), Rows.all(test_features_lbd, test_labels_b)
    l2_gs = np.full((1, 1), penalty / (labels_per_class * classes))
    accuracies = []
    for subset in range(subsets):
        few = train.select(draw_subset(train_labels_b, labels_per_class, classes, seed, subset))
        (probe,) = fit(few, [layers], l2_gs, classes, ProbeConfig(solver="lbfgs"), seed)
        accuracy, _ = score(probe, test, masks, seed)
        accuracies.append(accuracy)
    return LowDataResult(labels_per_class, tuple(accuracies))


def draw_subset(labels_b: np.ndarray, labels_per_class: int, classes: int, seed: int, subset: int) -> np.ndarray:
    """Returns indices of `labels_per_class` images of each class, one class after another.

    They are a function of (seed, subset).

    Raises:
      InputError: a class has fewer images.
    """
    counts_c = np.bincount(labels_b, minlength=classes)
    if counts_c.min() < labels_per_class:
        raise InputError(
            f"evaluate.probe.labels_per_class={labels_per_class}, but class {counts_c.argmin()} has {counts_c.min()} "
            "training images; ask for no more"
        )
    order = np.random.default_rng((seed, subset)).permutation(len(labels_b))
    return np.concatenate([order[labels_b[order] == label][:labels_per_class] for label in range(classes)])
