"""A linear probe of some layers, fitted with given settings: a logistic regression on their standardized features.

Array names carry their axes: g probes, s settings (L2 strengths or learning rates), n masks, b images, d feature width,
c classes.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.config import ProbeConfig
from igpt_jax.evaluate.features import Rows
from igpt_jax.evaluate.logistic_regression import RegularizationPath, cross_entropy
from igpt_jax.evaluate.sgd import descend
from igpt_jax.evaluate.vote import modal_vote
from igpt_jax.progress import progress


class LinearProbe(NamedTuple):
    """Probes of some layers side by side, one for each setting.

    Logits are `(x_bd - mean_d) * scale_d @ weights_dc + biases_c`.
    """

    layers: tuple[int, ...]
    mean_d: np.ndarray
    scale_d: np.ndarray
    weights_sdc: jax.Array | np.ndarray
    biases_sc: jax.Array | np.ndarray

    def read(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """Returns the predicted classes of the rows, (s, b) int32, and their losses, (s, b) float32 nats."""
        probe = tuple(self[1:])
        labels_b = rows.labels
        parts = [_read(*probe, rows.read(self.layers, places), labels_b[places]) for places in rows.chunks()]
        predictions_sb, losses_sb = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return predictions_sb, losses_sb


@jax.jit
@jax.default_matmul_precision("float32")
def _read(
    mean_d: jax.Array,
    scale_d: jax.Array,
    weights_sdc: jax.Array,
    biases_sc: jax.Array,
    features_bd: jax.Array,
    labels_b: jax.Array,
) -> tuple[jax.Array, jax.Array]:
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
    """Fits a probe to each group of layers, which all have equally many.

    Args:
      rows: the images to fit to.
      groups: layers that one probe reads side by side.
      settings_gs: (g, s) float32: L2 strengths, of which "lbfgs" takes one for each group; or learning rates.
      classes: number of classes.
      config: the solver and its options.
      seed: of the order of the images, for "sgd".

    Yields:
      The probe of each group, with all its settings.
    """
    if config.solver == "lbfgs":
        with progress("probes", len(groups), "fit") as advance:
            for layers, (l2,) in zip(groups, settings_gs, strict=True):
                yield regularization_path(rows, layers, classes)(float(l2))
                advance(1)
    else:
        mean_gd, scale_gd = map(np.stack, zip(*map(rows.standardization, groups), strict=True))
        scale_gd /= np.sqrt(np.maximum(np.count_nonzero(scale_gd, axis=1, keepdims=True), 1), dtype=np.float32)
        weights_gsdc, biases_gsc = descend(rows, groups, mean_gd, scale_gd, settings_gs, classes, config, seed)
        yield from map(LinearProbe, groups, mean_gd, scale_gd, weights_gsdc, biases_gsc)


def regularization_path(rows: Rows, layers: tuple[int, ...], classes: int) -> Callable[[float], LinearProbe]:
    """From an L2 strength to the probe of these layers; see `RegularizationPath`."""
    mean_d, scale_d = rows.standardization(layers)
    features_bd = (rows.read(layers).astype(np.float32, copy=False) - mean_d) * scale_d
    path = RegularizationPath(features_bd, rows.labels, classes)

    def solve(l2: float) -> LinearProbe:
        solution = path.solve(l2)
        return LinearProbe(layers, mean_d, scale_d, solution.weights_dc[None], solution.biases_c[None])

    return solve


def score(probe: LinearProbe, test: Rows, masks: int, seed: int) -> tuple[float, float]:
    """Scores a probe with one setting.

    Args:
      probe: to be scored.
      test: `masks` passes over the same images.
      masks: number of passes.
      seed: breaks ties of the vote.

    Returns:
      Per cent of right predictions: the mean over the masks, and of the most frequent prediction over them.
    """
    (predictions_b,), _ = probe.read(test)
    predictions_nb, labels_nb = predictions_b.reshape(masks, -1), test.labels.reshape(masks, -1)
    vote_b = modal_vote(predictions_nb, seed)
    return 100 * float(np.mean(predictions_nb == labels_nb)), 100 * float(np.mean(vote_b == labels_nb[0]))
