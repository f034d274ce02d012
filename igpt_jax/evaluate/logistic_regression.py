"""Multinomial logistic regression by a preconditioned L-BFGS, all L2 strengths in the same products.

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
SLOPE_TOLERANCE = 0.1  # of the slope at the end of a line search, relative to its start


class Probes(NamedTuple):
    """Solved probes, one for each layer l and strength s; logits are `features_bd @ weights_dc + biases_c`."""

    weights_lsdc: np.ndarray  # float32
    biases_lsc: np.ndarray  # float32
    losses_ls: np.ndarray  # the objective reached, nats an image
    gradient_norms_ls: np.ndarray  # of the objective in weights and biases together, L2


def fit_probes(features_lbd: np.ndarray, labels_b: np.ndarray, classes: int, l2_s: Sequence[float]) -> Probes:
    """Solves the logistic regression of every layer and strength to its optimum, all strengths in the same products.

    Minimises, for each layer l and strength s, the mean cross-entropy in nats over the images plus
    `l2_s / 2 * sum(weights_dc**2)`; biases are not penalised. scikit-learn's `LogisticRegression` reaches the same
    optimum with `C = 1 / (l2 * images)`. The features, (l, b, d), are used as given: standardise them first. One layer
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
    for layer, features_bd in enumerate(features_lbd):
        if not np.isfinite(features_bd).all():
            raise InputError(
                f"{split} features of layer {layer} hold NaN or infinity; the model has diverged, take an earlier "
                "checkpoint"
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
    """L-BFGS preconditioned by the principal axes of one layer's features, for every strength.

    Rotating the features onto their principal axes leaves the objective as it is and makes the curvature nearly
    diagonal: about `curvature_s * variance_d + l2_s`. With that as its initial inverse Hessian, L-BFGS needs tens of
    steps where ill-conditioned features cost it thousands without. The logits are linear in the step, so a line search
    needs no product with the features: an iteration costs two, one forward and one back.

    Returns weights (s, d, c), biases (s, c), objectives (s,) and gradient norms (s,).
    """
    images, width = features_bd.shape
    variance_d, axes_de = jnp.linalg.eigh(features_bd.T @ features_bd / images)
    features_bd = jnp.concatenate([features_bd @ axes_de, jnp.ones((images, 1))], axis=1)
    variance_1d1 = jnp.append(jnp.maximum(variance_d, 0), 1)[None, :, None]
    l2_sd1 = l2_s[:, None, None] * (jnp.arange(width + 1) < width)[None, :, None]
    is_label_1bc = jax.nn.one_hot(labels_b, classes, dtype=bool)[None]

    def logits(weights_sdc):
        return jnp.einsum("bd,sdc->sbc", features_bd, weights_sdc)

    def value_and_grad(weights_sdc, logits_sbc):
        loss_sb, residual_sbc = cross_entropy(logits_sbc, is_label_1bc)
        value_s = loss_sb.mean(axis=1) + _dot(l2_sd1 * weights_sdc, weights_sdc) / 2
        return value_s, jnp.einsum("bd,sbc->sdc", features_bd, residual_sbc) / images + l2_sd1 * weights_sdc

    def advance(state):
        inverse_sd1 = 1 / (state.curvature_s[:, None, None] * variance_1d1 + l2_sd1)
        direction_sdc = -_inverse_hessian_product(state.history, inverse_sd1, state.gradient_sdc)
        slope_s = _dot(state.gradient_sdc, direction_sdc)
        change_sbc = logits(direction_sdc)
        penalty_slope_s = _dot(l2_sd1 * state.weights_sdc, direction_sdc)
        penalty_curvature_s = _dot(l2_sd1 * direction_sdc, direction_sdc)

        def slope_and_curvature(length_s):
            moved_sbc = state.logits_sbc + length_s[:, None, None] * change_sbc
            _, residual_sbc = cross_entropy(moved_sbc, is_label_1bc)
            probability_sbc = residual_sbc + is_label_1bc
            centred_sbc = change_sbc - jnp.sum(probability_sbc * change_sbc, axis=-1, keepdims=True)
            return (
                _dot(residual_sbc, change_sbc) / images + penalty_slope_s + length_s * penalty_curvature_s,
                _dot(probability_sbc, centred_sbc**2) / images + penalty_curvature_s,
            )

        converged_s = state.converged_s | (-slope_s / 2 <= TOLERANCE * state.value_s)
        tolerance_s = jnp.where(converged_s, jnp.inf, SLOPE_TOLERANCE * jnp.abs(slope_s))
        length_s = jnp.where(converged_s, 0, _line_minimum(slope_and_curvature, tolerance_s))
        step_sdc = length_s[:, None, None] * direction_sdc
        weights_sdc = state.weights_sdc + step_sdc
        logits_sbc = state.logits_sbc + length_s[:, None, None] * change_sbc
        value_s, gradient_sdc = value_and_grad(weights_sdc, logits_sbc)

        bend_sdc = gradient_sdc - state.gradient_sdc
        seen_s = _dot(bend_sdc - l2_sd1 * step_sdc, step_sdc) / _dot(variance_1d1 * step_sdc, step_sdc)
        return _State(
            iteration=state.iteration + 1,
            converged_s=converged_s,
            weights_sdc=weights_sdc,
            logits_sbc=logits_sbc,
            value_s=value_s,
            gradient_sdc=gradient_sdc,
            curvature_s=jnp.where(seen_s > 0, seen_s, state.curvature_s),
            history=jax.tree.map(
                lambda pairs, newest: jnp.append(pairs[1:], newest[None], axis=0), state.history, (step_sdc, bend_sdc)
            ),
        )

    strengths = l2_s.shape[0]
    weights_sdc = jnp.zeros((strengths, width + 1, classes))
    logits_sbc = jnp.zeros((strengths, images, classes))
    value_s, gradient_sdc = value_and_grad(weights_sdc, logits_sbc)
    state = _State(
        iteration=0,
        converged_s=jnp.zeros(strengths, bool),
        weights_sdc=weights_sdc,
        logits_sbc=logits_sbc,
        value_s=value_s,
        gradient_sdc=gradient_sdc,
        curvature_s=jnp.full(strengths, 1 / classes),
        history=(jnp.zeros((HISTORY, *weights_sdc.shape)),) * 2,
    )
    state = jax.lax.while_loop(
        lambda state: (state.iteration < MAX_ITERATIONS) & ~state.converged_s.all(), advance, state
    )
    weights_sdc = state.weights_sdc
    value_s, gradient_sdc = value_and_grad(weights_sdc, logits(weights_sdc))
    norm_s = jnp.sqrt(_dot(gradient_sdc, gradient_sdc))
    return jnp.einsum("de,sec->sdc", axes_de, weights_sdc[:, :-1]), weights_sdc[:, -1], value_s, norm_s


class _State(NamedTuple):
    iteration: int
    converged_s: jax.Array
    weights_sdc: jax.Array
    logits_sbc: jax.Array
    value_s: jax.Array
    gradient_sdc: jax.Array
    curvature_s: jax.Array  # of the cross-entropy along the last step, where a feature has variance 1
    history: tuple[jax.Array, jax.Array]  # steps and gradient changes, oldest first, with an axis before s


def _dot(a_sxy, b_sxy):
    return jnp.sum(a_sxy * b_sxy, axis=(1, 2))


def cross_entropy(logits_sbc, is_label_1bc):
    """Loss (s, b) in nats and its gradient in the logits, accurate relative to themselves however small they are."""
    margin_sbc = logits_sbc - jnp.sum(logits_sbc, axis=-1, keepdims=True, where=is_label_1bc)
    top_sb1 = margin_sbc.max(axis=-1, keepdims=True)
    wrong_sbc = jnp.where(is_label_1bc, 0, jnp.exp(margin_sbc - top_sb1))
    wrong_sb1 = wrong_sbc.sum(axis=-1, keepdims=True)
    loss_sb1 = top_sb1 + jnp.log1p(wrong_sb1 + jnp.expm1(-top_sb1))
    return loss_sb1[..., 0], jnp.where(is_label_1bc, -wrong_sb1, wrong_sbc) / (wrong_sb1 + jnp.exp(-top_sb1))


def _inverse_hessian_product(history, inverse_sd1, gradient_sdc):
    """The two-loop recursion of L-BFGS (Nocedal and Wright, 2006, algorithm 7.4), skipping pairs without curvature."""
    steps, bends = history
    curvature = jax.vmap(_dot)(steps, bends)
    rho = jnp.where(curvature > 0, 1 / curvature, 0)

    def newest_first(vector_sdc, pair):
        step_sdc, bend_sdc, rho_s = pair
        alpha_s = rho_s * _dot(step_sdc, vector_sdc)
        return vector_sdc - alpha_s[:, None, None] * bend_sdc, alpha_s

    def oldest_first(vector_sdc, pair):
        step_sdc, bend_sdc, rho_s, alpha_s = pair
        beta_s = rho_s * _dot(bend_sdc, vector_sdc)
        return vector_sdc + (alpha_s - beta_s)[:, None, None] * step_sdc, None

    vector_sdc, alpha = jax.lax.scan(newest_first, gradient_sdc, (steps, bends, rho), reverse=True)
    return jax.lax.scan(oldest_first, inverse_sd1 * vector_sdc, (steps, bends, rho, alpha))[0]


def _line_minimum(slope_and_curvature, tolerance_s):
    """Newton's method for the zero of the slope, kept inside a bracket; along a line the objective is convex."""

    def advance(search):
        evaluations, length_s, low_s, high_s, slope_s, curvature_s = search
        low_s = jnp.where(slope_s < 0, length_s, low_s)
        high_s = jnp.where(slope_s < 0, high_s, length_s)
        newton_s = length_s - slope_s / curvature_s
        inside_s = (newton_s > low_s) & (newton_s < jnp.minimum(high_s, 16 * length_s))
        fallback_s = jnp.where(jnp.isinf(high_s), 4 * low_s, (low_s + high_s) / 2)
        moved_s = jnp.where(inside_s, newton_s, fallback_s)
        length_s = jnp.where(jnp.abs(slope_s) > tolerance_s, moved_s, length_s)
        return evaluations + 1, length_s, low_s, high_s, *slope_and_curvature(length_s)

    def searching(search):
        evaluations, _, _, _, slope_s, _ = search
        return (evaluations < MAX_EVALUATIONS) & jnp.any(jnp.abs(slope_s) > tolerance_s)

    one_s = jnp.ones_like(tolerance_s)
    search = (1, one_s, 0 * one_s, jnp.inf * one_s, *slope_and_curvature(one_s))
    return jax.lax.while_loop(searching, advance, search)[1]
