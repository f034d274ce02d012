"""Linear probes: what a logistic regression reads from every layer, chosen on held-out training images.

Array names carry their axes: g probes, l layers, s settings (L2 strengths or learning rates), b images, d feature
width.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from igpt_jax.config import ProbeConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.features import Rows
from igpt_jax.evaluate.linear_probe import LinearProbe, fit, regularization_path, score
from igpt_jax.evaluate.logistic_regression import check_features, check_l2
from igpt_jax.progress import progress
from igpt_jax.search import best, search

RATES_AT_ONCE = 4  # learning rates that are tried together
WEAKEST, STRONGEST = 1e-8, 1e4  # L2 strengths between which the search goes on beyond the ends of `config.l2`


@dataclasses.dataclass(frozen=True)
class LayerResult:
    """What one probe reads from one layer, or from several layers side by side.  Accuracies are in per cent."""

    layers: tuple[int, ...]  # numbers of the layers
    setting: float  # the L2 strength ("lbfgs") or learning rate ("sgd") that the held-out images chose
    held_out_accuracy: float  # of the held-out training images, at this setting
    held_out_loss: float  # of the same images, in nats per image
    accuracy: float  # of the test images; under several masks, the mean over the masks
    vote_accuracy: float  # of the most frequent prediction over the masks; without masks the same as `accuracy`


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """One probe for each layer, and one of the layers about the best if `concatenate` asks for it."""

    layer_results: tuple[LayerResult, ...]
    concatenated: LayerResult | None

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The accuracy of every layer on the test images, in per cent."""
        return tuple(result.accuracy for result in self.layer_results)

    @property
    def best(self) -> LayerResult:
        """The layer that reads the held-out images best: highest accuracy, ties to the lower loss."""
        return max(self.layer_results, key=lambda result: (result.held_out_accuracy, -result.held_out_loss))

    @property
    def best_layer(self) -> int:
        """The number of the best layer."""
        return self.best.layers[0]

    @property
    def accuracy(self) -> float:
        """The accuracy of the best layer on the test images, in per cent."""
        return self.best.accuracy


def probe(
    train_features_lbd: np.ndarray,
    train_labels_b: np.ndarray,
    test_features_lbd: np.ndarray,
    test_labels_b: np.ndarray,
    *,
    classes: int,
    config: ProbeConfig,
    seed: int,
    views: int = 1,
    masks: int = 1,
) -> ProbeResult:
    """Measures what a linear classifier reads from each layer.  Test labels take part in no choice.

    A fraction `config.held_out` of the training images, drawn by `seed`, chooses the setting of each layer and then the
    best layer: the highest held-out accuracy, and the lower held-out loss at a tie.  Each layer is refitted to all
    training images at its setting, and scored on the test images.  With `config.concatenate` = k, one more probe reads
    the k layers centered at the best, which is chosen and refitted in the same way.

    The solver "lbfgs" reaches the optimum for each strength of `config.l2`, and for further strengths beyond while an
    end is the best.  "sgd" tries `config.rates` in their order, and stops at the first whose held-out accuracy (at a
    tie, loss) is worse than the one before it.

    Both solvers see features that are standardized with the mean and the standard deviation of the images fitted to.
    Dimensions that never vary there count for nothing.  For "sgd", features are then divided by the square root of
    their number, so that an image's squared norm is 1 on average.  The curvature is then at most 1/2 in every layer and
    at every width, and steps with momentum 0.9 are stable up to a rate of at least 7.6 (2 (1 + momentum) / curvature).
    So the paper's rates, from 30 downwards, begin about where stability ends.

    Args:
      train_features_lbd: (l, b, d) floats of any dtype, in memory or on disk.  The rows are `views` passes over the
        same images in the same order.  Raw pixels are one layer of width h*w*3.
      train_labels_b: (b,) integers in [0, classes).
      test_features_lbd: the same of the test images; the rows are `masks` passes, each under other masks of a BERT
        model.
      test_labels_b: (b,) integers in [0, classes).
      classes: number of classes.
      config: solver, settings to try, and layers.
      seed: draws the held-out images, and the order of the images for "sgd".
      views: passes over the training images.  All views of an image are held out together.
      masks: passes over the test images.

    Returns:
      The probe of each layer.

    Raises:
      InputError: shapes disagree, labels or layers are out of range, features are not finite, or the split leaves a
        side empty.

    Reference:
      Section 3.1 of the paper, which states neither regularization nor standardization.
    """
    check_pair(train_features_lbd, train_labels_b, test_features_lbd, test_labels_b, classes)
    count = len(train_features_lbd)
    layers = config.layers or tuple(range(count))
    for layer in layers:
        if not 0 <= layer < count:
            raise InputError(f"evaluate.probe.layers names layer {layer}; the features have 0 to {count - 1}")
    if config.concatenate > count:
        raise InputError(f"evaluate.probe.concatenate={config.concatenate}, but the features have {count} layers")
    train, test = Rows.all(train_features_lbd, train_labels_b), Rows.all(test_features_lbd, test_labels_b)
    kept, held_out = _split(train, config.held_out, views, seed)

    def read(groups: list[tuple[int, ...]]) -> tuple[LayerResult, ...]:
        if config.solver == "sgd":
            choices = _choose_rates(kept, held_out, groups, classes, config, seed)
        else:
            choices = _choose_strengths(kept, held_out, groups, classes, config)
        settings_gs = np.array([[choice.setting] for choice in choices], np.float32)
        probes = fit(train, groups, settings_gs, classes, config, seed)
        scores = (score(probe, test, masks, seed) for probe in probes)
        return tuple(LayerResult(*choice, *accuracies) for choice, accuracies in zip(choices, scores, strict=True))

    result = ProbeResult(read([(layer,) for layer in layers]), concatenated=None)
    if config.concatenate:
        (concatenated,) = read([centered(result.best_layer, config.concatenate, count)])
        result = dataclasses.replace(result, concatenated=concatenated)
    return result


def check_pair(
    train_features_lbd: np.ndarray,
    train_labels_b: np.ndarray,
    test_features_lbd: np.ndarray,
    test_labels_b: np.ndarray,
    classes: int,
) -> None:
    """Raises InputError unless both sets of features are valid and come from one model."""
    check_features("training", train_features_lbd, train_labels_b, classes)
    check_features("test", test_features_lbd, test_labels_b, classes)
    (train_layers, _, train_width), (test_layers, _, test_width) = train_features_lbd.shape, test_features_lbd.shape
    if (train_layers, train_width) != (test_layers, test_width):
        raise InputError(
            f"training features have {train_layers} layers of width {train_width}, test features {test_layers} of "
            f"width {test_width}; take both from one model"
        )


def centered(layer: int, k: int, layers: int) -> tuple[int, ...]:
    """Returns k consecutive layers of `layers`, centered at one, or moved inwards at the ends of the network."""
    first = min(max(layer - k // 2, 0), layers - k)
    return tuple(range(first, first + k))


def _split(train: Rows, held_out: float, views: int, seed: int) -> tuple[Rows, Rows]:
    """Returns the images kept for fitting, and those held out."""
    images = len(train) // views
    if images * views != len(train):
        raise InputError(f"{len(train)} training rows are not {views} views of the same images; give whole passes")
    count = round(held_out * images)
    if not 0 < count < images:
        raise InputError(
            f"evaluate.probe.held_out={held_out} of {images} training images holds out {count}; "
            "at least one image must be held out and one kept"
        )
    is_held_out_b = np.tile(np.random.default_rng(seed).permutation(images) < count, views)
    return train.select(np.flatnonzero(~is_held_out_b)), train.select(np.flatnonzero(is_held_out_b))


class _Choice(NamedTuple):
    layers: tuple[int, ...]
    setting: float
    held_out_accuracy: float
    held_out_loss: float


def _choose_strengths(
    kept: Rows, held_out: Rows, groups: Sequence[tuple[int, ...]], classes: int, config: ProbeConfig
) -> list[_Choice]:
    """The L2 strength of each group of layers that reads the held-out images best.

    Where that is the first or last of `config.l2`, the search goes on in the same ratio, until the best strength has
    worse ones on both sides, or `WEAKEST` or `STRONGEST` is reached.  One strength alone is taken as it is.
    """
    for l2 in config.l2:
        check_l2(l2)
    choices = []
    with progress("probes: L2 strengths", len(groups) * len(config.l2), "fit") as advance:
        for layers in groups:
            path = regularization_path(kept, layers, classes)
            measured = {}
            for l2 in sorted(config.l2, reverse=True):
                measured[l2] = _measure(path(l2), held_out)[0]
                advance(1)
            while (beyond := _beyond_the_end(measured)) is not None:
                measured[beyond] = _measure(path(beyond), held_out)[0]
            chosen = best(measured)
            accuracy, negative_loss = measured[chosen]
            choices.append(_Choice(layers, chosen, accuracy, -negative_loss))
    return choices


def _beyond_the_end(measured: dict[float, tuple[float, float]]) -> float | None:
    """The next strength to try where the best of those measured is the weakest or the strongest, else None."""
    weakest_first, chosen = sorted(measured), best(measured)
    if len(weakest_first) < 2:
        return None
    for end, neighbor in (weakest_first[:2], weakest_first[:-3:-1]):
        if chosen == end:
            l2 = float(f"{end * end / neighbor:.3g}")
            return l2 if WEAKEST <= l2 <= STRONGEST and l2 not in measured else None
    return None


def _choose_rates(
    kept: Rows, held_out: Rows, groups: Sequence[tuple[int, ...]], classes: int, config: ProbeConfig, seed: int
) -> list[_Choice]:
    """The learning rate of each group of layers that reads the held-out images best.

    Rates are tried in their order, `RATES_AT_ONCE` together, until one does worse than the one before it.
    """
    measures = {}  # (layers, rate) to (accuracy, -loss)

    def measure(layers: tuple[int, ...], rate: float) -> tuple[float, float]:
        if (layers, rate) not in measures:
            start = config.rates.index(rate)
            rates = config.rates[start : start + RATES_AT_ONCE]
            rates_gs = np.tile(np.array(rates, np.float32), (len(groups), 1))
            for probe in fit(kept, groups, rates_gs, classes, config, seed):
                for tried, measured in zip(rates, _measure(probe, held_out), strict=True):
                    measures[probe.layers, tried] = measured
        return measures[layers, rate]

    choices = []
    for layers in groups:
        measured = search(config.rates, functools.partial(measure, layers))
        rate = best(measured)
        accuracy, negative_loss = measured[rate]
        choices.append(_Choice(layers, rate, accuracy, -negative_loss))
    return choices


def _measure(probe: LinearProbe, held_out: Rows) -> list[tuple[float, float]]:
    """For each setting of the probe: its accuracy in per cent, and its negative loss in nats an image."""
    predictions_sb, losses_sb = probe.read(held_out)
    accuracy_s, loss_s = 100 * np.mean(predictions_sb == held_out.labels, axis=1), losses_sb.mean(axis=1)
    return [(float(accuracy), -float(loss)) for accuracy, loss in zip(accuracy_s, loss_s, strict=True)]
