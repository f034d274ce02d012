"""Linear probes: what a logistic regression reads from every layer, chosen on held-out training images.

Array names carry their axes: g probes, l layers, s settings (L2 strengths or learning rates), n masks, b images,
d feature width, c classes.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.config import ProbeConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.features import Rows
from igpt_jax.evaluate.logistic_regression import check_features, checked_l2, cross_entropy, solve
from igpt_jax.evaluate.sgd import descend
from igpt_jax.evaluate.vote import modal_vote
from igpt_jax.search import best, search

RATES_AT_ONCE = 4  # learning rates that are tried together


@dataclasses.dataclass(frozen=True)
class LayerResult:
    """What one probe reads from one layer, or from several side by side; accuracies in per cent."""

    layers: tuple[int, ...]  # their numbers
    setting: float  # the L2 strength ("lbfgs") or learning rate ("sgd") that the held-out images chose
    held_out_accuracy: float  # of the held-out training images, at this setting
    held_out_loss: float  # likewise, nats an image
    accuracy: float  # of the test images; where they come under several masks, the mean over the masks
    vote_accuracy: float  # of the modal prediction over the masks; without masks `accuracy` again


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """One probe a layer, and one of several layers about the best where `concatenate` asks for it."""

    layer_results: tuple[LayerResult, ...]
    concatenated: LayerResult | None

    @property
    def best(self) -> LayerResult:
        """The layer that reads the held-out images best: highest accuracy, ties to the lower loss."""
        return max(self.layer_results, key=lambda reading: (reading.held_out_accuracy, -reading.held_out_loss))

    @property
    def best_layer(self) -> int:
        """Its number."""
        return self.best.layers[0]

    @property
    def accuracy(self) -> float:
        """Its accuracy on the test images, in per cent."""
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
    """Measures what a linear classifier reads from each layer; test labels take part in no choice.

    A fraction `config.held_out` of the training images, drawn by `seed`, chooses the setting of each layer and then the
    best layer: highest held-out accuracy, ties to the lower held-out loss. Each layer is refitted to all training
    images at its setting and scored on the test images. With `config.concatenate` of k, the k layers centered at the
    best (moved inwards at the ends of the network) are then read together by one probe, chosen and refitted likewise.

    The solver "lbfgs" reaches the optimum for each strength of `config.l2`, and the best is taken. "sgd" tries
    `config.rates` in their order, and stops at the first whose held-out accuracy (at a tie, loss) is worse than the one
    before it. Both see features standardized with the mean and the standard deviation of the images fitted to;
    dimensions that never vary there count for nothing. For "sgd" they are then divided by the square root of their
    number, so that an image's squared norm is 1 on average. The curvature is then at most 1/2 in every layer and at
    every width, and steps with momentum 0.9 are stable up to a rate of 7.6 or more (2 (1 + momentum) / curvature): the
    paper's rates, from 30 downwards, begin about where stability ends. How it scaled its features, it does not say.

    Features are (l, b, d) floats of any dtype, in memory or on disk, with every layer that `config.layers` names;
    labels are (b,) integers in [0, classes). Raw pixels are one layer of width h*w*3. The training rows are `views`
    passes over the same images in the same order; all views of an image are held out together. The test rows are
    `masks` passes, each under other masks of a BERT model. Follows section 3.1 of the paper, which states neither
    regularization nor standardization.

    Raises InputError when shapes disagree, labels or layers are out of range, features are not finite, or the split
    leaves a side empty.
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

    def read(groups):
        choices = _choose(kept, held_out, groups, classes, config, seed)
        settings_gs = np.array([[choice.setting] for choice in choices], np.float32)
        probes = fit(train, groups, settings_gs, classes, config, seed)
        scores = (score(probe, test, masks, seed) for probe in probes)
        return tuple(LayerResult(*choice, *accuracies) for choice, accuracies in zip(choices, scores, strict=True))

    result = ProbeResult(read([(layer,) for layer in layers]), concatenated=None)
    if config.concatenate:
        (concatenated,) = read([centered(result.best_layer, config.concatenate, count)])
        result = dataclasses.replace(result, concatenated=concatenated)
    return result


def check_pair(train_features_lbd, train_labels_b, test_features_lbd, test_labels_b, classes: int) -> None:
    """Raises InputError unless both sets of features are whole and of one model."""
    check_features("training", train_features_lbd, train_labels_b, classes)
    check_features("test", test_features_lbd, test_labels_b, classes)
    (train_layers, _, train_width), (test_layers, _, test_width) = train_features_lbd.shape, test_features_lbd.shape
    if (train_layers, train_width) != (test_layers, test_width):
        raise InputError(
            f"training features have {train_layers} layers of width {train_width}, test features {test_layers} of "
            f"width {test_width}; take both from one model"
        )


def centered(layer: int, k: int, layers: int) -> tuple[int, ...]:
    """The k consecutive layers about one, of `layers`; moved inwards where they would reach beyond the ends."""
    first = min(max(layer - k // 2, 0), layers - k)
    return tuple(range(first, first + k))


def _split(train, held_out, views, seed):
    """The images kept for fitting, and those held out."""
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


def _choose(kept, held_out, groups, classes, config, seed):
    """The setting of each group of layers that reads the held-out images best."""
    is_sgd = config.solver == "sgd"
    settings, at_once = (config.rates, RATES_AT_ONCE) if is_sgd else (config.l2, len(config.l2))
    measures = {}  # (layers, setting) to (accuracy, -loss)

    def measure(layers, setting):
        if (layers, setting) not in measures:  # the same for all layers, and for the next settings too
            start = settings.index(setting)
            together = settings[start : start + at_once]
            settings_gs = np.tile(np.array(together, np.float32), (len(groups), 1))
            for probe in fit(kept, groups, settings_gs, classes, config, seed):
                predictions_sb, losses_sb = probe.read(held_out)
                accuracy_s, loss_s = 100 * np.mean(predictions_sb == held_out.labels, axis=1), losses_sb.mean(axis=1)
                for tried, accuracy, loss in zip(together, accuracy_s, loss_s, strict=True):
                    measures[probe.layers, tried] = float(accuracy), -float(loss)
        return measures[layers, setting]

    def choice(layers):
        measure_one = functools.partial(measure, layers)
        found = search(settings, measure_one) if is_sgd else {l2: measure_one(l2) for l2 in settings}
        setting = best(found)
        accuracy, negative_loss = found[setting]
        return _Choice(layers, setting, accuracy, -negative_loss)

    return [choice(layers) for layers in groups]


class LinearProbe(NamedTuple):
    """Probes of some layers side by side, one a setting; logits are `(x_bd - mean_d) * scale_d @ weights + biases`."""

    layers: tuple[int, ...]
    mean_d: np.ndarray
    scale_d: np.ndarray
    weights_sdc: jax.Array
    biases_sc: jax.Array

    def read(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Predictions of the rows, (s, b) int32, and their losses, (s, b) float32 nats."""
        probe = tuple(self[1:])
        labels_b = rows.labels
        parts = [_read(*probe, rows.read(self.layers, places), labels_b[places]) for places in rows.chunks()]
        predictions_sb, losses_sb = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return predictions_sb, losses_sb


@jax.jit
@jax.default_matmul_precision("float32")
def _read(mean_d, scale_d, weights_sdc, biases_sc, features_bd, labels_b):
    features_bd = (features_bd.astype(jnp.float32) - mean_d[None]) * scale_d[None]
    logits_sbc = jnp.einsum("bd,sdc->sbc", features_bd, weights_sdc) + biases_sc[:, None]
    losses_sb, _ = cross_entropy(logits_sbc, jax.nn.one_hot(labels_b, logits_sbc.shape[2], dtype=bool)[None])
    return logits_sbc.argmax(axis=2).astype(jnp.int32), losses_sb


def fit(
    rows: Rows,
    groups: Sequence[tuple[int, ...]],
    settings_gs: np.ndarray,
    classes: int,
    config: ProbeConfig,
    seed: int,
) -> Iterator[LinearProbe]:
    """Fits a probe for each group of layers, which all have equally many, at each of its settings; (g, s) float32."""
    if config.solver == "lbfgs":
        for layers, l2_s in zip(groups, settings_gs, strict=True):
            mean_d, scale_d = rows.standardization(layers)
            features_bd = (rows.read(layers).astype(np.float32, copy=False) - mean_d) * scale_d
            weights_sdc, biases_sc, _, _ = solve(features_bd, rows.labels, checked_l2(l2_s), classes)
            yield LinearProbe(layers, mean_d, scale_d, weights_sdc, biases_sc)
    else:
        mean_gd, scale_gd = map(np.stack, zip(*map(rows.standardization, groups), strict=True))
        scale_gd /= np.sqrt(np.maximum(np.count_nonzero(scale_gd, axis=1, keepdims=True), 1), dtype=np.float32)
        weights_gsdc, biases_gsc = descend(rows, groups, mean_gd, scale_gd, settings_gs, classes, config, seed)
        yield from map(LinearProbe, groups, mean_gd, scale_gd, weights_gsdc, biases_gsc)


def score(probe: LinearProbe, test: Rows, masks: int, seed: int) -> tuple[float, float]:
    """Accuracies in per cent of a probe with one setting: the mean over the masks, and that of their modal vote.

    The rows are `masks` passes over the same images; ties of the vote are broken by `seed`.
    """
    (predictions_b,), _ = probe.read(test)
    predictions_nb, labels_nb = predictions_b.reshape(masks, -1), test.labels.reshape(masks, -1)
    vote_b = modal_vote(predictions_nb, seed)
    return 100 * float(np.mean(predictions_nb == labels_nb)), 100 * float(np.mean(vote_b == labels_nb[0]))
