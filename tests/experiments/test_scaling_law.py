"""The fits of scaling laws, on losses whose law is known."""

import dataclasses
import math

import numpy as np
import pytest

from experiments.scaling_law import (
    Point,
    Surface,
    bootstrap,
    by_budget,
    fit_surface,
    lowest,
    optima,
    optimal_growth,
    optimum,
    parabola,
    power_law,
)

LAW = Surface(irreducible=1.3, a=20.0, b=60.0, alpha=0.35, beta=0.30)
BUDGETS = (1e12, 3e12, 1e13, 3e13)


def runs(law=LAW, noise=0.0, seed=0):
    """Six sizes a budget, a factor of two apart, around the best one; every budget is 6 N D."""
    rng, points = np.random.default_rng(seed), []
    for flops in BUDGETS:
        # The minimum of A N^-alpha + B (6 N / C)^beta, from its derivative.
        ratio = law.alpha * law.a / (law.beta * law.b) * (flops / 6) ** law.beta
        best = ratio ** (1 / (law.alpha + law.beta))
        for factor in 2.0 ** np.arange(-2.5, 3):
            n = best * factor
            d = flops / 6 / n
            points.append(Point(flops, n, d, law(n, d) * math.exp(noise * rng.standard_normal())))
    return points


def test_the_minimum_of_an_exact_parabola_is_found():
    points = [Point(6e12, n, 1e12 / n, 1.5 + 0.1 * math.log(n / 3e4) ** 2) for n in (1e4, 2e4, 5e4, 1e5)]
    best = optimum(points)
    assert best.inside
    assert best.parameters == pytest.approx(3e4)
    assert best.tokens == pytest.approx(1e12 / 3e4)
    assert best.value == pytest.approx(1.5)


@pytest.mark.parametrize("values", [(4, 3, 2, 1.5), (1.5, 2, 3, 4), (1, 2, 2, 1)])
def test_a_minimum_outside_the_curve_is_not_taken_for_one(values):
    points = [Point(1.0, 10.0**i, 1.0, value) for i, value in enumerate(values)]
    assert not optimum(points).inside


def test_a_power_law_is_inverted():
    law = power_law(BUDGETS, [0.02 * flops**0.46 for flops in BUDGETS])
    assert law.exponent == pytest.approx(0.46)
    assert law(2e13) == pytest.approx(0.02 * 2e13**0.46)


def test_the_exponents_are_those_that_the_surface_implies():
    parameters, tokens = optimal_growth(optima(runs()))
    assert parameters.exponent == pytest.approx(LAW.parameters_exponent, abs=0.01)
    assert tokens.exponent == pytest.approx(1 - LAW.parameters_exponent, abs=0.01)
    assert all(optimum(group).inside for group in by_budget(runs()).values())


def test_the_surface_is_recovered_and_predicts_a_larger_budget():
    surface = fit_surface(runs())
    for name, value in dataclasses.asdict(LAW).items():
        assert getattr(surface, name) == pytest.approx(value, rel=0.02), name
    assert surface(1e6, 2e7) == pytest.approx(LAW(1e6, 2e7), rel=1e-3)


def test_one_failed_run_does_not_move_the_surface():
    points = runs()
    points[7] = dataclasses.replace(points[7], value=2 * points[7].value)
    surface = fit_surface(points)
    assert surface(1e6, 2e7) == pytest.approx(LAW(1e6, 2e7), rel=5e-3)


def test_the_intervals_of_noisy_runs_hold_the_true_exponent_and_shrink_with_the_noise():
    loud, quiet = (bootstrap(runs(noise=noise, seed=1), seed=0, draws=200) for noise in (3e-3, 3e-4))
    for intervals in (loud, quiet):
        low, high = intervals.parameters
        assert low - 0.01 < LAW.parameters_exponent < high + 0.01
    widths = [high - low for low, high in (loud.parameters, quiet.parameters)]
    assert widths[1] < widths[0]
    assert quiet.kept > 0.7


def test_the_bootstrap_says_when_no_draw_has_a_minimum():
    points = [dataclasses.replace(point, value=-math.log(point.parameters)) for point in runs()]
    assert math.isnan(bootstrap(points, seed=0, draws=20).parameters[0])


def test_the_parabola_passes_through_three_points():
    points = [Point(1.0, n, 1.0, value) for n, value in ((10.0, 2.0), (100.0, 1.0), (1000.0, 3.0))]
    for point in points:
        assert np.polyval(parabola(points), math.log(point.parameters)) == pytest.approx(point.value)


def test_the_lowest_rate_is_the_vertex_of_a_parabola_kept_between_the_rates_that_were_tried():
    rates = (1e-3, 2e-3, 4e-3, 8e-3)

    def losses(best):
        return [1 + math.log(rate / best) ** 2 for rate in rates]

    assert lowest(rates, losses(3e-3)) == pytest.approx(3e-3)
    assert lowest(rates, losses(2e-2)) == pytest.approx(8e-3)
    assert lowest(rates, [2.0, 3.0, 3.0, 2.5]) == 1e-3
