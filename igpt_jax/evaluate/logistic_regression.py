"""Multinomial logistic regression by a preconditioned L-BFGS, along a path of L2 strengths.

Array names carry their axes: l layers, s strengths, b images, d feature width, c classes. Inside the solver d counts
one feature more, which is always 1: its weights are the biases.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from igpt_jax.errors import InputError

MAX_ITERATIONS = 1000
# Pairs of step and gradient change that L-BFGS remembers.  They are many, since a weak penalty leaves the curvature
# ill-conditioned: with 100 in place of 10, features of 64 dimensions need a third of the iterations.  Where that would
# take more than 512 MiB, it remembers fewer.
HISTORY = 100
SHORTEST_HISTORY, MAX_HISTORY_VALUES = 10, 2**26
TOLERANCE = 1e-8  # of the predicted decrease still to come, relative to the objective
MAX_EVALUATIONS = 20  # of the slope in one line search
SLOPE_TOLERANCE = 0.1  # of the slope at the end of a line search, relative to its start
_CHUNK = 1024  # images whose features are checked at once: they may lie on disk


class Probes(NamedTuple):
    """Solved probes, one for each layer l and strength s; logits are `features_bd @ weights_dc + biases_c`."""

    weights_lsdc: np.ndarray  # float32
    biases_lsc: np.ndarray  # float32
    losses_ls: np.ndarray  # the objective reached, nats an image
    gradient_norms_ls: np.ndarray  # of the objective in weights and biases together, L2


def fit_probes(features_lbd: np.ndarray, labels_b: np.ndarray, classes: int, l2_s: Sequence[float]) -> Probes:
    """Solves the logistic regression of every layer and strength to its optimum.

    Minimizes, for each layer l and strength s, the mean cross-entropy in nats over the images plus
    `l2_s / 2 * sum(weights_dc**2)`.  Biases are not penalized.  scikit-learn's `LogisticRegression` reaches the same
    optimum with `C = 1 / (l2 * images)`.

    Args:
      features_lbd: (l, b, d) floats, used as they are: standardize them first.  One layer at a time is moved to the
        device, in float32.
      labels_b: (b,) integers in [0, classes); a class may have no image.
      classes: number of classes.
      l2_s: strengths of the penalty, all positive: separable classes have no optimum without one.

    Returns:
      The weights, and what they reach.

    Raises:
      InputError: shapes disagree, labels are out of range, features are not finite, or a strength is not positive.
    """
    check_features("training", features_lbd, labels_b, classes)
    for l2 in l2_s:
        check_l2(l2)
    layers = []
    for features_bd in features_lbd:
        path = RegularizationPath(features_bd, labels_b, classes)
        solved = {l2: path.solve(l2) for l2 in sorted(l2_s, reverse=True)}
        layers.append([np.stack(parts) for parts in zip(*(solved[l2] for l2 in l2_s), strict=True)])
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


def check_l2(l2: float) -> None:
    """Raises InputError where a strength is not positive."""
    if not 0 < l2 < np.inf:
        raise InputError(f"L2 strength {l2} must be positive and finite, such as 0.01")


class Solution(NamedTuple):
    """The optimum for one strength; logits are `features_bd @ weights_dc + biases_c`."""

    weights_dc: np.ndarray
    biases_c: np.ndarray
    loss: np.ndarray  # the objective, nats an image
    gradient_norm: np.ndarray


class RegularizationPath:
    """Logistic regressions of one layer's features, best solved from the strongest penalty to the weakest.

    Rotating the features onto their principal axes leaves the objective as it is and makes the curvature nearly
    diagonal: about `curvature * variance_d + l2`.  With that as its initial inverse Hessian, L-BFGS needs tens of
    steps where ill-conditioned features cost it thousands without.  Every strength starts from the optimum that was
    solved before it.
    """

    def __init__(self, features_bd: np.ndarray, labels_b: np.ndarray, classes: int):
        """Takes (b, d) features and (b,) integer labels, and rotates the features on the device in float32."""
        self._labels_b, self._classes = labels_b, classes
        self._rotated, self._axes_de = _rotate(jnp.asarray(features_bd, jnp.float32))
        self._weights_ec = jnp.zeros((features_bd.shape[1] + 1, classes))

    def solve(self, l2: float) -> Solution:
        """Finds the optimum for a strength, starting from the one solved before."""
        self._weights_ec, weights_dc, loss, gradient_norm = _solve(
            self._rotated, self._axes_de, self._labels_b, l2, self._weights_ec
        )
        biases_c = self._weights_ec[-1]
        return Solution(*map(np.asarray, (weights_dc, biases_c, loss, gradient_norm)))


class _Rotated(NamedTuple):
    """Features on their principal axes, with one more that is always 1."""

    features_bd: jax.Array
    features_db: jax.Array  # the same; see `_rotate`
    variance_d1: jax.Array


@jax.jit
@jax.default_matmul_precision("float32")
def _rotate(features_bd: jax.Array) -> tuple[_Rotated, jax.Array]:
    images = len(features_bd)
    variance_d, axes_de = jnp.linalg.eigh(features_bd.T @ features_bd / images)
    features_bd = jnp.concatenate([features_bd @ axes_de, jnp.ones((images, 1))], axis=1)
    variance_d1 = jnp.append(jnp.maximum(variance_d, 0), 1)[:, None]
    # Both layouts are kept, each for one of the two products: XLA would fold a transposition into the gradient's, which
    # then takes three times as long.
    return _Rotated(features_bd, features_bd.T, variance_d1), axes_de


@jax.jit
@jax.default_matmul_precision("float32")
def _solve(
    rotated: _Rotated, axes_de: jax.Array, labels_b: jax.Array, l2: jax.Array, weights_ec: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Minimizes by L-BFGS.

    The logits are linear in the step, so a line search needs no product with the features: an iteration costs two, one
    forward and one back.

    Returns:
      Weights on the principal axes, with the biases last; the weights of the features as they were; the objective; the
      norm of its gradient.
    """
    is_label_bc = jax.nn.one_hot(labels_b, weights_ec.shape[1], dtype=bool)
    weights_ec = _minimize(rotated, is_label_bc, l2, weights_ec)
    logits_bc = rotated.features_bd @ weights_ec
    value, gradient_ec = _value_and_gradient(rotated, is_label_bc, l2, weights_ec, logits_bc)
    return weights_ec, axes_de @ weights_ec[:-1], value, jnp.linalg.norm(gradient_ec)


class _History(NamedTuple):
    """The last m pairs of L-BFGS, as a ring: pair number i lies in row i % m."""

    steps_mp: jax.Array  # p = d * c weights
    bends_mp: jax.Array  # changes of the gradient
    products_mm: jax.Array  # steps_mp @ bends_mp.T


class _State(NamedTuple):
    iteration: jax.Array
    converged: jax.Array
    weights_dc: jax.Array
    logits_bc: jax.Array
    value: jax.Array
    gradient_dc: jax.Array
    curvature: jax.Array | float  # of the cross-entropy along the last step, where a feature has variance 1
    history: _History


def _minimize(rotated: _Rotated, is_label_bc: jax.Array, l2: jax.Array, weights_dc: jax.Array) -> jax.Array:
    """Descends from the given weights to the optimum."""
    features_bd, _, variance_d1 = rotated
    images, width_and_one = features_bd.shape
    l2_d1 = l2 * _is_penalized(width_and_one)

    def advance(state: _State) -> _State:
        inverse_d1 = 1 / (state.curvature * variance_d1 + l2_d1)
        direction_dc = -_inverse_hessian_product(state.history, state.iteration, inverse_d1, state.gradient_dc)
        change_bc = features_bd @ direction_dc
        slope = jnp.vdot(state.gradient_dc, direction_dc)
        penalty_slope = jnp.vdot(l2_d1 * state.weights_dc, direction_dc)
        penalty_curvature = jnp.vdot(l2_d1 * direction_dc, direction_dc)

        def slope_and_curvature(length: jax.Array) -> tuple[jax.Array, jax.Array]:
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
        value, gradient_dc = _value_and_gradient(rotated, is_label_bc, l2, weights_dc, logits_bc)

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
            history=_remember(state.history, state.iteration, step_dc, bend_dc),
        )

    logits_bc = features_bd @ weights_dc
    value, gradient_dc = _value_and_gradient(rotated, is_label_bc, l2, weights_dc, logits_bc)
    state = _State(
        iteration=jnp.array(0),
        converged=jnp.array(False),
        weights_dc=weights_dc,
        logits_bc=logits_bc,
        value=value,
        gradient_dc=gradient_dc,
        curvature=1 / weights_dc.shape[1],
        history=_empty_history(weights_dc.size),
    )
    return jax.lax.while_loop(
        lambda state: (state.iteration < MAX_ITERATIONS) & ~state.converged, advance, state
    ).weights_dc


def _is_penalized(width_and_one: int) -> jax.Array:
    """(d, 1): 1 for a feature, 0 for the last one, whose weights are the biases."""
    return (jnp.arange(width_and_one) < width_and_one - 1)[:, None]


def _value_and_gradient(
    rotated: _Rotated, is_label_bc: jax.Array, l2: jax.Array, weights_dc: jax.Array, logits_bc: jax.Array
) -> tuple[jax.Array, jax.Array]:
    penalty_dc = l2 * _is_penalized(len(weights_dc)) * weights_dc
    loss_b, residual_bc = cross_entropy(logits_bc, is_label_bc)
    value = loss_b.mean() + jnp.vdot(penalty_dc, weights_dc) / 2
    return value, rotated.features_db @ residual_bc / len(residual_bc) + penalty_dc


def cross_entropy(logits_bc: jax.Array, is_label_bc: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss (..., b) in nats and its gradient in the logits, accurate relative to themselves however small they are.

    Leading axes of the logits (..., b, c) broadcast.
    """
    margin_bc = logits_bc - jnp.sum(logits_bc, axis=-1, keepdims=True, where=is_label_bc)
    top_b1 = margin_bc.max(axis=-1, keepdims=True)
    wrong_bc = jnp.where(is_label_bc, 0, jnp.exp(margin_bc - top_b1))
    wrong_b1 = wrong_bc.sum(axis=-1, keepdims=True)
    loss_b1 = top_b1 + jnp.log1p(wrong_b1 + jnp.expm1(-top_b1))
    return loss_b1[..., 0], jnp.where(is_label_bc, -wrong_b1, wrong_bc) / (wrong_b1 + jnp.exp(-top_b1))


def _empty_history(weights: int) -> _History:
    pairs = min(HISTORY, max(SHORTEST_HISTORY, MAX_HISTORY_VALUES // weights))
    return _History(jnp.zeros((pairs, weights)), jnp.zeros((pairs, weights)), jnp.zeros((pairs, pairs)))


def _remember(history: _History, iteration: jax.Array, step_dc: jax.Array, bend_dc: jax.Array) -> _History:
    """Puts the pair of an iteration in the place of the oldest."""
    row = iteration % len(history.steps_mp)
    steps_mp = history.steps_mp.at[row].set(step_dc.ravel())
    bends_mp = history.bends_mp.at[row].set(bend_dc.ravel())
    products_mm = history.products_mm.at[row].set(bends_mp @ steps_mp[row]).at[:, row].set(steps_mp @ bends_mp[row])
    return _History(steps_mp, bends_mp, products_mm)


def _inverse_hessian_product(
    history: _History, iteration: jax.Array, inverse_d1: jax.Array, gradient_dc: jax.Array
) -> jax.Array:
    """L-BFGS's inverse Hessian times the gradient, from the pairs before an iteration.

    The two-loop recursion (Nocedal and Wright, 2006, algorithm 7.4) with its loops written as triangular systems, which
    leaves four products of matrix and vector in place of hundreds of short steps.  With S and Y the steps and bends,
    oldest first, and R the upper triangle of S Y', the first loop finds alpha = R⁻¹ S g, and the second one
    alpha - beta = R'⁻¹ (diag(R) alpha - Y H (g - Y' alpha)).  Pairs without curvature are skipped.
    """
    steps_mp, bends_mp, products_mm = history
    pairs = len(steps_mp)
    oldest_first_m = (iteration + jnp.arange(pairs)) % pairs
    products_mm = products_mm[oldest_first_m][:, oldest_first_m]
    is_curved_m = jnp.diag(products_mm) > 0
    r_mm = jnp.where(is_curved_m[:, None] & is_curved_m[None], jnp.triu(products_mm), jnp.eye(pairs))

    def solve_loop(values_m: jax.Array, transposed: int) -> jax.Array:
        values_m = jnp.where(is_curved_m, values_m, 0)
        return jax.scipy.linalg.solve_triangular(r_mm, values_m, trans=transposed)

    def in_ring(values_m: jax.Array) -> jax.Array:
        return jnp.zeros(pairs).at[oldest_first_m].set(values_m)

    gradient_p = gradient_dc.ravel()
    alpha_m = solve_loop((steps_mp @ gradient_p)[oldest_first_m], transposed=0)
    rest_p = gradient_p - in_ring(alpha_m) @ bends_mp
    product_p = (inverse_d1 * rest_p.reshape(gradient_dc.shape)).ravel()
    change_m = solve_loop(jnp.diag(r_mm) * alpha_m - (bends_mp @ product_p)[oldest_first_m], transposed=1)
    return (product_p + in_ring(change_m) @ steps_mp).reshape(gradient_dc.shape)


def _line_minimum(slope_and_curvature: Callable, tolerance: jax.Array) -> jax.Array:
    """Newton's method for the zero of the slope, kept inside a bracket; along a line the objective is convex."""

    def advance(search: tuple) -> tuple:
        evaluations, length, low, high, slope, curvature = search
        low = jnp.where(slope < 0, length, low)
        high = jnp.where(slope < 0, high, length)
        newton = length - slope / curvature
        is_inside = (newton > low) & (newton < jnp.minimum(high, 16 * length))
        length = jnp.where(is_inside, newton, jnp.where(jnp.isinf(high), 4 * low, (low + high) / 2))
        return evaluations + 1, length, low, high, *slope_and_curvature(length)

    def searching(search: tuple) -> jax.Array:
        evaluations, _, _, _, slope, _ = search
        return (evaluations < MAX_EVALUATIONS) & (jnp.abs(slope) > tolerance)

    search = (1, jnp.array(1.0), jnp.array(0.0), jnp.inf, *slope_and_curvature(1.0))
    return jax.lax.while_loop(searching, advance, search)[1]
