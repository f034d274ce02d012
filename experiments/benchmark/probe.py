"""Measures the probes of all layers of a network, beside scikit-learn's logistic regression."""

import dataclasses
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from experiments.benchmark.measure import Result, Side, compare
from igpt_jax.evaluate.logistic_regression import fit_probes

LAYERS, IMAGES, WIDTH, CLASSES, L2 = 25, 10_000, 512, 10, (1e-4, 1e-3, 1e-2)


def probe() -> list[Result]:
    """Fits probes to 25 layers of 10,000 x 512 features, 10 classes, three L2 strengths.

    It is one round without warm-up, since the peer takes minutes.
    """
    features_lbd, labels_b = synthetic_features()
    reached: dict[str, Any] = {}

    def ours() -> None:
        reached["ours"] = fit_probes(features_lbd, labels_b, CLASSES, L2).losses_ls

    def theirs() -> None:
        reached["theirs"] = [[_solve(features_bd, labels_b, l2) for l2 in L2] for features_bd in features_lbd]

    fit_probes(features_lbd[:1], labels_b, CLASSES, L2)  # compiles the solver
    name = f"probe, {LAYERS} layers of {IMAGES:,} x {WIDTH}, {CLASSES} classes, {len(L2)} strengths"
    sides = {"scikit-learn's LogisticRegression, lbfgs": Side(theirs, LAYERS * len(L2))}
    (result,) = compare(name, "probes/s", Side(ours, LAYERS * len(L2)), sides, "", rounds=1, warm=False)
    theirs_ls = [
        [_objective(solved, features_bd, labels_b, l2) for solved, l2 in zip(row, L2, strict=True)]
        for row, features_bd in zip(reached["theirs"], features_lbd, strict=True)
    ]
    worst = (reached["ours"] / theirs_ls - 1).max()
    remark = f"our objectives are at most {worst:.1e} above scikit-learn's, relative"
    return [dataclasses.replace(result, remark=remark)]


def synthetic_features() -> tuple[np.ndarray, np.ndarray]:
    """Standardized features, (LAYERS, IMAGES, WIDTH) float32, and labels, (IMAGES,) int32.

    Their spectrum falls as that of a network's features does, and they tell something about the labels.
    """
    rng = np.random.default_rng(0)
    labels_b = rng.integers(0, CLASSES, IMAGES).astype(np.int32)
    layers = []
    for _ in range(LAYERS):
        hidden_bd = rng.normal(size=(IMAGES, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.5
        hidden_bd += 0.3 * rng.normal(size=(CLASSES, WIDTH))[labels_b] * np.arange(1, WIDTH + 1) ** -0.5
        features_bd = hidden_bd @ np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
        layers.append((features_bd - features_bd.mean(axis=0)) / features_bd.std(axis=0))
    return np.stack(layers).astype(np.float32), labels_b


def _solve(features_bd: np.ndarray, labels_b: np.ndarray, l2: float) -> LogisticRegression:
    return LogisticRegression(C=1 / (l2 * len(labels_b)), max_iter=1000, tol=1e-4).fit(features_bd, labels_b)


def _objective(solved: LogisticRegression, features_bd: np.ndarray, labels_b: np.ndarray, l2: float) -> float:
    """The mean cross-entropy in nats plus the L2 penalty, in float64."""
    logits_bc = features_bd.astype(np.float64) @ solved.coef_.T + solved.intercept_
    top_b = logits_bc.max(axis=1)
    right_b = logits_bc[np.arange(len(labels_b)), labels_b]
    loss_b = np.log(np.exp(logits_bc - top_b[:, None]).sum(axis=1)) + top_b - right_b
    return loss_b.mean() + l2 / 2 * (solved.coef_.astype(np.float64) ** 2).sum()
