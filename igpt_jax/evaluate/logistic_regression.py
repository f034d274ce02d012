"""Multinomial logistic regression by a preconditioned L-BFGS, along a path of L2 strengths.

Array names carry their axes: l layers, s strengths, b images, d feature width, c classes. Inside the solver d counts
one feature more, which is always 1: its weights are the biases.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.errors import InputError

MAX_ITERATIONS = 1000
HISTORY = 10  # pairs of step and gradient change that L-BFGS remembers
TOLERANCE = 1e-8  # of the predicted decrease still to come, relative to the objective
MAX_EVALUATIONS = 20  # of the slope in one line search
_CHUNK = 1024  # images whose features are checked at once: they may lie on disk
SLOPE_TOLERANCE = 0.1  # of the slope at the end of a line search, relative to its start


class Probes(NamedTuple):
    """Solved probes, one for each layer l and strength s; logits are `features_bd @ weights_dc + biases_c`."""

    weights_lsdc: np.ndarray  # float32
    biases_lsc: np.ndarray  # float32
    losses_ls: np.ndarray  # the objective reached, nats an image
    gradient_norms_ls: np.ndarray  # of the objective in weights and biases together, L2


def fit_probes(features_lbd: np.ndarray, labels_b: np.ndarray, classes: int, l2_s: Sequence[float]) -> Probes:
    """Solves the logistic regression of every layer and strength to its optimum.

    Minimizes, for each layer l and strength s, the mean cross-entropy in nats over the images plus
    `l2_s / 2 * sum(weights_dc**2)`; biases are not penalised. scikit-learn's `LogisticRegression` reaches the same
    optimum with `C = 1 / (l2 * images)`. The features, (l, b, d), are used as given: standardize them first. One layer
    at a time is moved to the device, in float32. labels_b: (b,) integers in [0, classes); a class may have no image.

    Raises InputError when shapes disagree, labels are out of range, features are not finite, or a strength is not
    positive: separable classes have no optimum without a penalty.
    """
    check_features("training", features_lbd, labels_b, classes)
    l2_s = checked_l2(l2_s)
    layers = [solve(jnp.asarray(features_bd, jnp.float32), labels_b, l2_s, classes) for features_bd in features_lbd]
    return Probes(*(np.stack(parts) for parts in zip(*layers, strict=True)))


def check_features(split: str, features_lbd: np.ndarray, labels_b: np.ndarray, classes: int) -> None:
    """Raises InputError unless features (l, b, d) are finite and labels (b,) fit them and the classes."""
    if features_lbd.ndim != 3 or 0 in features_lbd.shape:
        raise InputError(
            f"{split} features have shape {features_lbd.shape}; expected (layers, images, width), none of them 0"
        )
    if labels_b.shape != features_lbd.shape[1:2] or not np.issubdtype(labels_b.dtype, np.integer):
        raise InputError(
            f"{split} labels are {labels_b.dtype} of shape {labels_b.shape}; expected one integer for each of "
            f"{features_lbd.shape[1]} images"
        )
    if labels_b.min() < 0 or labels_b.max() >= classes:
        raise InputError(
            f"{split} labels lie in [{labels_b.min()}, {labels_b.max()}]; expected [0, {classes - 1}] for {classes} "
            "classes: count the classes from 0"
        )
    for start in range(0, features_lbd.shape[1], _CHUNK):
        finite_l = np.isfinite(features_lbd[:, start : start + _CHUNK]).all(axis=(1, 2))
        if not finite_l.all():
            raise InputError(
                f"{split} features of layer {finite_l.argmin()} hold NaN or infinity; the model has diverged, take an "
                "earlier checkpoint"
            )


def checked_l2(l2_s: Sequence[float]) -> np.ndarray:
    """The strengths as float32.  Raises InputError where one is not positive."""
    for l2 in l2_s:
        if not 0 < l2 < np.inf:
            raise InputError(f"L2 strength {l2} must be positive and finite, such as 0.01")
    return np.asarray(l2_s, np.float32)


@functools.partial(jax.jit, static_argnames="classes")
@jax.default_matmul_precision("float32")
def solve(features_bd, labels_b, l2_s, classes):
    """L-BFGS preconditioned by the principal axes of one layer's features, from the strongest L2 to the weakest.

    Rotating the features onto their principal axes leaves the objective as it is and makes the curvature nearly
    diagonal: about `curvature * variance_d + l2`. With that as its initial inverse Hessian, L-BFGS needs tens of
    steps where ill-conditioned features cost it thousands without. The logits are linear in the step, so a line search
    needs no product with the features: an iteration costs two, one forward and one back. Every strength starts from
    the optimum of the one above it.

    Returns weights (s, d, c), biases (s, c), objectives (s,) and gradient norms (s,).
    """
    images, width = features_bd.shape
    variance_d, axes_de = jnp.linalg.eigh(features_bd.T @ features_bd / images)
    features_bd = jnp.concatenate([features_bd @ axes_de, jnp.ones((images, 1))], axis=1)
    # Rows for either product: XLA would fold the transposition into the gradient's, which then takes thrice as long.
    features = features_bd, jax.lax.optimization_barrier(features_bd.T)
    variance_d1 = jnp.append(jnp.maximum(variance_d, 0), 1)[:, None]
    is_label_bc = jax.nn.one_hot(labels_b, classes, dtype=bool)

    def minimize(weights_dc, l2):
        weights_dc = _minimize(features, is_label_bc, variance_d1, l2, weights_dc)
        value, gradient_dc = _value_and_gradient(features, is_label_bc, l2, weights_dc, features_bd @ weights_dc)
        return weights_dc, (weights_dc, value, jnp.linalg.norm(gradient_dc))

    strongest_first_s = jnp.argsort(-l2_s)
    _, path = jax.lax.scan(minimize, jnp.zeros((width + 1, classes)), l2_s[strongest_first_s])
    weights_sdc, value_s, norm_s = jax.tree.map(lambda x: x[jnp.argsort(strongest_first_s)], path)
    return jnp.einsum("de,sec->sdc", axes_de, weights_sdc[:, :-1]), weights_sdc[:, -1], value_s, norm_s


class _State(NamedTuple):
    iteration: int
    converged: jax.Array
    weights_dc: jax.Array
    logits_bc: jax.Array
    value: jax.Array
    gradient_dc: jax.Array
    curvature: jax.Array  # of the cross-entropy along the last step, where a feature has variance 1
    history: tuple[jax.Array, jax.Array]  # steps and gradient changes (m, d, c), oldest first


def _minimize(features, is_label_bc, variance_d1, l2, weights_dc):
    """Descends from the given weights to the optimum."""
    features_bd, _ = features
    images, width_and_one = features_bd.shape
    l2_d1 = l2 * _is_penalised(width_and_one)

    def advance(state):
        inverse_d1 = 1 / (state.curvature * variance_d1 + l2_d1)
        direction_dc = -_inverse_hessian_product(state.history, inverse_d1, state.gradient_dc)
        change_bc = features_bd @ direction_dc
        slope = jnp.vdot(state.gradient_dc, direction_dc)
        penalty_slope = jnp.vdot(l2_d1 * state.weights_dc, direction_dc)
        penalty_curvature = jnp.vdot(l2_d1 * direction_dc, direction_dc)

        def slope_and_curvature(length):
            _, residual_bc = cross_entropy(state.logits_bc + length * change_bc, is_label_bc)
            probability_bc = residual_bc + is_label_bc
            centered_bc = change_bc - jnp.sum(probability_bc * change_bc, axis=-1, keepdims=True)
            return (
                jnp.vdot(residual_bc, change_bc) / images + penalty_slope + length * penalty_curvature,
                jnp.vdot(probability_bc, centered_bc**2) / images + penalty_curvature,
            )

        converged = -slope / 2 <= TOLERANCE * state.value
        length = jnp.where(converged, 0, _line_minimum(slope_and_curvature, SLOPE_TOLERANCE * jnp.abs(slope)))
        step_dc = length * direction_dc
        weights_dc = state.weights_dc + step_dc
        logits_bc = state.logits_bc + length * change_bc
        value, gradient_dc = _value_and_gradient(features, is_label_bc, l2, weights_dc, logits_bc)

        bend_dc = gradient_dc - state.gradient_dc
        seen = jnp.vdot(bend_dc - l2_d1 * step_dc, step_dc) / jnp.vdot(variance_d1 * step_dc, step_dc)
        return _State(
            iteration=state.iteration + 1,
            converged=converged,
            weights_dc=weights_dc,
            logits_bc=logits_bc,
            value=value,
            gradient_dc=gradient_dc,
            curvature=jnp.where(seen > 0, seen, state.curvature),
            history=jax.tree.map(
                lambda pairs, newest: jnp.append(pairs[1:], newest[None], axis=0), state.history, (step_dc, bend_dc)
            ),
        )

    logits_bc = features_bd @ weights_dc
    value, gradient_dc = _value_and_gradient(features, is_label_bc, l2, weights_dc, logits_bc)
    state = _State(
        iteration=0,
        converged=jnp.array(False),
        weights_dc=weights_dc,
        logits_bc=logits_bc,
        value=value,
        gradient_dc=gradient_dc,
        curvature=1 / weights_dc.shape[1],
        history=(jnp.zeros((HISTORY, *weights_dc.shape)),) * 2,
    )
    return jax.lax.while_loop(
        lambda state: (state.iteration < MAX_ITERATIONS) & ~state.converged, advance, state
    ).weights_dc


def _is_penalised(width_and_one):
    """(d, 1): 1 for a feature, 0 for the last one, whose weights are the biases."""
    return (jnp.arange(width_and_one) < width_and_one - 1)[:, None]


def _value_and_gradient(features, is_label_bc, l2, weights_dc, logits_bc):
    _, features_db = features
    penalty_dc = l2 * _is_penalised(len(weights_dc)) * weights_dc
    loss_b, residual_bc = cross_entropy(logits_bc, is_label_bc)
    value = loss_b.mean() + jnp.vdot(penalty_dc, weights_dc) / 2
    return value, features_db @ residual_bc / len(residual_bc) + penalty_dc


def cross_entropy(logits_bc, is_label_bc):
    """Loss (..., b) in nats and its gradient in the logits, accurate relative to themselves however small they are.

    Leading axes of the logits (..., b, c) broadcast.
    """
    margin_bc = logits_bc - jnp.sum(logits_bc, axis=-1, keepdims=True, where=is_label_bc)
    top_b1 = margin_bc.max(axis=-1, keepdims=True)
    wrong_bc = jnp.where(is_label_bc, 0, jnp.exp(margin_bc - top_b1))
    wrong_b1 = wrong_bc.sum(axis=-1, keepdims=True)
    loss_b1 = top_b1 + jnp.log1p(wrong_b1 + jnp.expm1(-top_b1))
    return loss_b1[..., 0], jnp.where(is_label_bc, -wrong_b1, wrong_bc) / (wrong_b1 + jnp.exp(-top_b1))


def _inverse_hessian_product(history, inverse_d1, gradient_dc):
    """The two-loop recursion of L-BFGS (Nocedal and Wright, 2006, algorithm 7.4), skipping pairs without curvature."""
    steps, bends = history
    curvature = jax.vmap(jnp.vdot)(steps, bends)
    rho = jnp.where(curvature > 0, 1 / curvature, 0)

    def newest_first(vector_dc, pair):
        step_dc, bend_dc, rho = pair
        alpha = rho * jnp.vdot(step_dc, vector_dc)
        return vector_dc - alpha * bend_dc, alpha

    def oldest_first(vector_dc, pair):
        step_dc, bend_dc, rho, alpha = pair
        beta = rho * jnp.vdot(bend_dc, vector_dc)
        return vector_dc + (alpha - beta) * step_dc, None

    vector_dc, alpha = jax.lax.scan(newest_first, gradient_dc, (steps, bends, rho), reverse=True)
    return jax.lax.scan(oldest_first, inverse_d1 * vector_dc, (steps, bends, rho, alpha))[0]


def _line_minimum(slope_and_curvature, tolerance):
    """Newton's method for the zero of the slope, kept inside a bracket; along a line the objective is convex."""

    def advance(search):
        evaluations, length, low, high, slope, curvature = search
        low = jnp.where(slope < 0, length, low)
        high = jnp.where(slope < 0, high, length)
        newton = length - slope / curvature
        is_inside = (newton > low) & (newton < jnp.minimum(high, 16 * length))
        length = jnp.where(is_inside, newton, jnp.where(jnp.isinf(high), 4 * low, (low + high) / 2))
        return evaluations + 1, length, low, high, *slope_and_curvature(length)

    def searching(search):
        evaluations, _, _, _, slope, _ = search
        return (evaluations < MAX_EVALUATIONS) & (jnp.abs(slope) > tolerance)

    search = (1, jnp.array(1.0), jnp.array(0.0), jnp.inf, *slope_and_curvature(1.0))
    return jax.lax.while_loop(searching, advance, search)[1]
