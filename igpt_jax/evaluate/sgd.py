"""Multinomial logistic regression by SGD with momentum, for many probes and learning rates at once.

The paper's way with ImageNet: momentum 0.9, a cosine to zero, 1,000,000 steps.  Array names carry their axes: g probes,
r learning rates, n steps, b images, d feature width, c classes.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.config import ProbeConfig
from igpt_jax.evaluate.features import Rows
from igpt_jax.evaluate.logistic_regression import cross_entropy
from igpt_jax.progress import progress

MOMENTUM = 0.9
_CHUNK_BYTES = 2**26  # features of consecutive batches that are moved to the device together


_State = tuple[jax.Array, jax.Array]  # weights and their velocity, (g, d, r, c)


def batch_places(rows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Which rows the batch of a step holds, (batch_size,) in [0, rows): a function of (seed, step).

    Every epoch takes each row once, in an order of its own; a batch may end one epoch and begin the next.
    """
    epochs_b, ranks_b = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), rows)
    return np.concatenate([_order(rows, seed, epoch)[ranks_b[epochs_b == epoch]] for epoch in np.unique(epochs_b)])


@functools.lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(rows)


def descend(
    train: Rows,
    groups: Sequence[Sequence[int]],
    mean_gd: np.ndarray,
    scale_gd: np.ndarray,
    rates_gr: np.ndarray,
    classes: int,
    config: ProbeConfig,
    seed: int,
) -> tuple[jax.Array, jax.Array]:
    """Fits one probe for each group of layers and learning rate, all to the same batches, gathered once.

    Every step moves along the mean gradient of a batch of `config.batch_size` rows: `velocity = 0.9 velocity +
    gradient`, `weights -= rate * velocity`, where the rate falls from `rates_gr` to zero along a cosine over
    `config.steps` steps, and the gradient contains `config.weight_decay * weights`, but for the biases.  All start at
    zero.  Features are used as `(x - mean) * scale`; (g, d) each, where groups have equally many layers.

    Returns weights (g, r, d, c) and biases (g, r, c), float32.
    """
    (probes, rates), width = rates_gr.shape, mean_gd.shape[1]
    row_bytes = probes * width * train.features_lbd.itemsize
    chunk = max(1, min(config.steps, _CHUNK_BYTES // (row_bytes * config.batch_size)))
    labels_b = train.labels
    weights_gdrc = jnp.zeros((probes, width + 1, rates, classes))
    state = weights_gdrc, jnp.zeros_like(weights_gdrc)
    with progress("probes: SGD", config.steps, "step") as advance:
        for first in range(0, config.steps, chunk):
            steps_n = np.arange(first, min(first + chunk, config.steps))
            places_nb = np.stack([batch_places(len(train), config.batch_size, seed, step) for step in steps_n])
            features_gnbd = np.stack([train.read(layers, places_nb.reshape(-1)) for layers in groups])
            features_gnbd = features_gnbd.reshape(probes, *places_nb.shape, width)
            fraction_n = (1 + np.cos(np.pi * steps_n / config.steps)) / 2
            jax.block_until_ready(state)  # so that no more than one chunk waits
            state = _advance(
                state,
                features_gnbd,
                labels_b[places_nb],
                (fraction_n[:, None, None] * rates_gr).astype(np.float32),
                mean_gd[:, None],
                scale_gd[:, None],
                config.weight_decay,
            )
            advance(len(steps_n))
    weights_grdc = state[0].swapaxes(1, 2)
    return weights_grdc[:, :, :-1], weights_grdc[:, :, -1]


@functools.partial(jax.jit, donate_argnums=0)
@jax.default_matmul_precision("float32")
def _advance(
    state: _State,
    features_gnbd: jax.Array,
    labels_nb: jax.Array,
    rates_ngr: jax.Array,
    mean_g1d: jax.Array,
    scale_g1d: jax.Array,
    weight_decay: float,
) -> _State:
    """Takes a step with each of the batches; the last feature is always 1, and its weights are the biases."""
    (_, width_and_one, _, classes), batch_size = state[0].shape, labels_nb.shape[1]
    is_penalized_1d11 = (jnp.arange(width_and_one) < width_and_one - 1).reshape(1, -1, 1, 1)

    def step(state: _State, batch: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[_State, None]:
        weights_gdrc, velocity_gdrc = state
        features_gbd, labels_b, rates_gr = batch
        features_gbd = (features_gbd.astype(jnp.float32) - mean_g1d) * scale_g1d
        features_gbd = jnp.concatenate([features_gbd, jnp.ones((*features_gbd.shape[:2], 1))], axis=2)
        is_label_bc = jax.nn.one_hot(labels_b, classes, dtype=bool)
        logits_gbrc = jnp.einsum("gbd,gdrc->gbrc", features_gbd, weights_gdrc)
        _, residual_gbrc = cross_entropy(logits_gbrc, is_label_bc[None, :, None])
        gradient_gdrc = jnp.einsum("gbd,gbrc->gdrc", features_gbd, residual_gbrc) / batch_size
        gradient_gdrc += weight_decay * is_penalized_1d11 * weights_gdrc
        velocity_gdrc = MOMENTUM * velocity_gdrc + gradient_gdrc
        return (weights_gdrc - rates_gr[:, None, :, None] * velocity_gdrc, velocity_gdrc), None

    return jax.lax.scan(step, state, (features_gnbd.swapaxes(0, 1), labels_nb, rates_ngr))[0]
