"""Fits scaling laws to the losses of finished runs: IsoFLOP parabolas, power laws of their minima, and a loss surface.

The methods are approaches 2 and 3 of Hoffmann et al. 2022 (arXiv:2203.15556).  "Parameters" are the weights of the
matmuls: those of the blocks and of the token head.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.optimize
import scipy.special

HUBER = 1e-3  # where the loss of a residual in log loss turns from quadratic to linear
# Where the fit of the surface starts: log E, log A, log B, alpha, beta.
STARTS = tuple(itertools.product((-1.0, 0.5), (1.0, 5.0), (1.0, 5.0), (0.3, 0.7), (0.3, 0.7)))


@dataclasses.dataclass(frozen=True)
class Point:
    """One finished run."""

    flops: float  # the budget, forward and backward
    parameters: float
    tokens: float  # seen in training
    value: float  # held-out loss in nats per token, or any other metric with a minimum


@dataclasses.dataclass(frozen=True)
class Optimum:
    """The minimum of one budget's parabola."""

    flops: float
    parameters: float
    tokens: float
    value: float
    inside: bool  # whether it is a minimum, between the smallest and the largest model


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """y = coefficient * x^exponent."""

    coefficient: float
    exponent: float

    def __call__(self, x: float) -> float:
        """Evaluates the law."""
        return self.coefficient * x**self.exponent


@dataclasses.dataclass(frozen=True)
class Surface:
    """L(N, D) = E + A / N^alpha + B / D^beta, in nats per token."""

    irreducible: float  # E
    a: float
    b: float
    alpha: float
    beta: float

    def __call__(self, parameters: float, tokens: float) -> float:
        """Predicts the loss of a model with N parameters after D tokens."""
        return self.irreducible + self.a / parameters**self.alpha + self.b / tokens**self.beta

    @property
    def parameters_exponent(self) -> float:
        """How the best N grows with the budget C = k N D: as C^(beta / (alpha + beta))."""
        return self.beta / (self.alpha + self.beta)


def by_budget(points: Iterable[Point]) -> dict[float, list[Point]]:
    """Groups points by their budget, from the smallest on."""
    groups: dict[float, list[Point]] = {}
    for point in sorted(points, key=lambda point: (point.flops, point.parameters)):
        groups.setdefault(point.flops, []).append(point)
    return groups


def parabola(points: Sequence[Point]) -> np.ndarray:
    """Fits value = c0 x^2 + c1 x + c2 with x = ln N by least squares, and returns (c0, c1, c2)."""
    return np.polyfit([math.log(point.parameters) for point in points], [point.value for point in points], 2)


def optimum(points: Sequence[Point]) -> Optimum:
    """Finds the best size for one budget: the minimum of the parabola in the logarithm of the parameters.

    Args:
      points: of one budget, with at least three sizes.
    """
    curvature, slope, offset = parabola(points)
    sizes = [math.log(point.parameters) for point in points]
    best = -slope / (2 * curvature) if curvature else math.inf
    inside = curvature > 0 and min(sizes) < best < max(sizes)
    # For a fixed budget, log tokens are nearly linear in log parameters.
    tokens = np.polyfit(sizes, [math.log(point.tokens) for point in points], 1)
    value = offset - slope**2 / (4 * curvature) if inside else min(point.value for point in points)
    if not inside:
        best = sizes[int(np.argmin([point.value for point in points]))]
    return Optimum(points[0].flops, math.exp(best), math.exp(np.polyval(tokens, best)), value, bool(inside))


def lowest(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Finds the best learning rate: the minimum of a parabola in the logarithm of the rate, between the rates tried."""
    curvature, slope, _ = np.polyfit(np.log(rates), losses, 2)
    if curvature <= 0:
        return rates[int(np.argmin(losses))]
    return float(np.clip(math.exp(-slope / (2 * curvature)), min(rates), max(rates)))


def power_law(xs: Sequence[float], ys: Sequence[float]) -> PowerLaw:
    """Fits a power law by least squares in logarithms."""
    exponent, intercept = np.polyfit(np.log(xs), np.log(ys), 1)
    return PowerLaw(math.exp(intercept), float(exponent))


def optima(points: Iterable[Point]) -> list[Optimum]:
    """Finds the best size for every budget, from the smallest budget on."""
    return [optimum(group) for group in by_budget(points).values()]


def optimal_growth(best: Sequence[Optimum]) -> tuple[PowerLaw, PowerLaw]:
    """Returns how the best number of parameters and of tokens grow with the budget."""
    flops = [one.flops for one in best]
    return power_law(flops, [one.parameters for one in best]), power_law(flops, [one.tokens for one in best])


def tokens_exponent(best: Sequence[Optimum]) -> float:
    """How the best number of tokens grows with the budget; NaN if fewer than three minima are inside their curves."""
    inside = [one for one in best if one.inside]
    return optimal_growth(inside)[1].exponent if len(inside) >= 3 else math.nan


@dataclasses.dataclass(frozen=True)
class Intervals:
    """How uncertain two exponents are."""

    parameters: tuple[float, float]
    tokens: tuple[float, float]
    kept: float  # the fraction of the draws that had all their minima inside


def bootstrap(points: Iterable[Point], *, seed: int, draws: int = 500, level: float = 0.9) -> Intervals:
    """Estimates how uncertain the exponents are, by resampling the runs of every budget with replacement.

    A draw in which the minimum of a budget is not inside its curve is dropped.

    Args:
      points: of all budgets.
      seed: of the draws.
      draws: how many to make.
      level: probability of the intervals.

    Returns:
      The intervals of the exponents; NaN if no draw was kept.
    """
    rng, groups = np.random.default_rng(seed), by_budget(points)
    exponents: list[list[float]] = []
    for _ in range(draws):
        best: list[Optimum] = []
        for group in groups.values():
            chosen = [group[i] for i in rng.integers(0, len(group), len(group))]
            if len({point.parameters for point in chosen}) < 3 or not (one := optimum(chosen)).inside:
                break
            best.append(one)
        else:
            exponents.append([law.exponent for law in optimal_growth(best)])
    if not exponents:
        return Intervals((math.nan, math.nan), (math.nan, math.nan), 0.0)
    tail = (1 - level) / 2
    low, high = np.quantile(exponents, (tail, 1 - tail), axis=0)
    return Intervals((low[0], high[0]), (low[1], high[1]), len(exponents) / draws)


def fit_surface(points: Sequence[Point]) -> Surface:
    """Fits the loss surface: Huber loss of the residuals in log loss, by L-BFGS from many starts.

    Args:
      points: at least five, whose values are losses in nats per token.
    """
    log_n, log_d, log_l = (
        np.log([getattr(point, name) for point in points]) for name in ("parameters", "tokens", "value")
    )

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        e, a, b, alpha, beta = x
        terms = np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d])
        residuals = scipy.special.logsumexp(terms, axis=0) - log_l
        shares = scipy.special.softmax(terms, axis=0)  # the derivative of logsumexp
        slopes = np.clip(residuals, -HUBER, HUBER)
        gradient = [shares[0], shares[1], shares[2], -shares[1] * log_n, -shares[2] * log_d]
        return float(scipy.special.huber(HUBER, residuals).sum()), np.array([slopes @ part for part in gradient])

    bounds = [(-10, 5), (-10, 40), (-10, 40), (0.01, 3), (0.01, 3)]
    options = {"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-12}
    fits = [
        scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for start in STARTS
    ]
    e, a, b, alpha, beta = min(fits, key=lambda fit: fit.fun).x
    return Surface(math.exp(e), math.exp(a), math.exp(b), float(alpha), float(beta))
