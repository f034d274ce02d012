"""Linear probes: what a logistic regression reads from every layer, chosen on held-out training images.

Array names carry their axes: l layers, s strengths, b images, d feature width, c classes.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.config import ProbeConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.logistic_regression import check_features, checked_l2, cross_entropy, solve


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """Accuracies in per cent, one for each probed layer, and what the held-out images chose."""

    layers: tuple[int, ...]  # numbers of the probed layers
    accuracy_l: tuple[float, ...]  # on the test images
    held_out_accuracy_l: tuple[float, ...]  # on the held-out training images, at the chosen strength
    l2_l: tuple[float, ...]  # the chosen strengths
    best_layer: int  # the number of the layer with the highest held-out accuracy
    accuracy: float  # on the test images, of best_layer


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
) -> ProbeResult:
    """Measures what a linear classifier reads from each layer; test labels take part in no choice.

    A fraction `config.held_out` of the training images, drawn by `seed`, chooses the strength of each layer and then
    the best layer: highest held-out accuracy, ties to the lower held-out loss. Each layer is refitted to all training
    images at its strength and scored on the test images. Features are standardised with the mean and the standard
    deviation of the images fitted to; dimensions that never vary there count for nothing.

    Features are (l, b, d) floats of any dtype, with every layer that `config.layers` names; labels are (b,) integers
    in [0, classes). Raw pixels are one layer of width h*w*3. The training rows are `views` passes over the same
    images in the same order; all views of an image are held out together. Follows section 3.1 of the paper, with
    L-BFGS; the paper does not state its regularisation.

    Raises InputError when shapes disagree, labels or layers are out of range, features are not finite, or the split
    leaves a side empty.
    """
    check_features("training", train_features_lbd, train_labels_b, classes)
    check_features("test", test_features_lbd, test_labels_b, classes)
    (train_layers, rows, train_width), (test_layers, _, test_width) = train_features_lbd.shape, test_features_lbd.shape
    if (train_layers, train_width) != (test_layers, test_width):
        raise InputError(
            f"training features have {train_layers} layers of width {train_width}, test features {test_layers} of "
            f"width {test_width}; take both from one model"
        )
    layers = config.layers or tuple(range(train_layers))
    for layer in layers:
        if not 0 <= layer < train_layers:
            raise InputError(f"evaluate.probe.layers names layer {layer}; the features have 0 to {train_layers - 1}")
    images = rows // views
    if images * views != rows:
        raise InputError(f"{rows} training rows are not {views} views of the same images; give whole passes")
    held_out_count = round(config.held_out * images)
    if not 0 < held_out_count < images:
        raise InputError(
            f"evaluate.probe.held_out={config.held_out} of {images} training images holds out {held_out_count}; "
            "at least one image must be held out and one kept"
        )
    l2_s = checked_l2(config.l2)
    is_held_out_b = np.tile(np.random.default_rng(seed).permutation(images) < held_out_count, views)
    held_out_b, kept_b = np.flatnonzero(is_held_out_b), np.flatnonzero(~is_held_out_b)

    accuracies, held_out_accuracies, held_out_losses, strengths = [], [], [], []
    for layer in layers:
        train_bd, test_bd = train_features_lbd[layer], test_features_lbd[layer]
        hits_s, loss_s = _fit_and_score(
            train_bd[kept_b], train_labels_b[kept_b], train_bd[held_out_b], train_labels_b[held_out_b], l2_s, classes
        )
        chosen = np.lexsort((loss_s, -hits_s))[0]
        held_out_accuracies.append(100 * float(hits_s[chosen]) / len(held_out_b))
        held_out_losses.append(float(loss_s[chosen]))
        strengths.append(config.l2[chosen])
        hits_s, _ = _fit_and_score(train_bd, train_labels_b, test_bd, test_labels_b, l2_s[chosen : chosen + 1], classes)
        accuracies.append(100 * float(hits_s[0]) / len(test_labels_b))

    best = np.lexsort((held_out_losses, -np.array(held_out_accuracies)))[0]
    return ProbeResult(
        layers=tuple(layers),
        accuracy_l=tuple(accuracies),
        held_out_accuracy_l=tuple(held_out_accuracies),
        l2_l=tuple(strengths),
        best_layer=layers[best],
        accuracy=accuracies[best],
    )


@functools.partial(jax.jit, static_argnames="classes")
def _fit_and_score(train_bd, train_labels_b, test_bd, test_labels_b, l2_s, classes):
    """Probes fitted to the training images: right predictions and mean loss in nats on the test images, (s,) each."""
    logits_sbc = probe_logits(train_bd, train_labels_b, test_bd, l2_s, classes)
    loss_sb, _ = cross_entropy(logits_sbc, jax.nn.one_hot(test_labels_b, classes, dtype=bool)[None])
    return jnp.sum(logits_sbc.argmax(axis=-1) == test_labels_b[None], axis=1), loss_sb.mean(axis=1)


@functools.partial(jax.jit, static_argnames="classes")
def probe_logits(
    train_bd: jax.Array, train_labels_b: jax.Array, test_bd: jax.Array, l2_s: jax.Array, classes: int
) -> jax.Array:
    """Logits (s, b, c) of the test images by probes fitted to the standardised training images, one a strength."""
    train_bd, test_bd = train_bd.astype(jnp.float32), test_bd.astype(jnp.float32)
    mean_1d = train_bd.mean(axis=0, keepdims=True)
    varies_d = train_bd.max(axis=0) > train_bd.min(axis=0)
    scale_1d = jnp.where(varies_d, 1 / train_bd.std(axis=0), 0)[None]
    weights_sdc, biases_sc, _, _ = solve((train_bd - mean_1d) * scale_1d, train_labels_b, l2_s, classes)
    with jax.default_matmul_precision("float32"):
        return jnp.einsum("bd,sdc->sbc", (test_bd - mean_1d) * scale_1d, weights_sdc) + biases_sc[:, None]
