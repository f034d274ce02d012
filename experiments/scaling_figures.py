"""The figures of scaling laws: IsoFLOP curves, how their minima move, and the loss surface."""

import math
import pathlib
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.scaling_law import Optimum, Point, Surface, by_budget, optimum, parabola, power_law
from igpt_jax.report.figures import save_figure

COLORS = ("#1f6f8b", "#c2571a", "#6b8e23", "#7a4f9a")


def draw_isoflops(path: pathlib.Path, title: str, points: Sequence[Point]) -> None:
    """Draws the held-out loss by size, one curve for each budget, with its parabola and the minimum."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    groups = by_budget(points)
    shades = mpl.colormaps["viridis"](np.linspace(0.1, 0.85, len(groups)))
    for (flops, group), color in zip(groups.items(), shades, strict=True):
        sizes = np.array([point.parameters for point in group])
        axes.plot(sizes, [point.value for point in group], "o", color=color, label=f"{flops:.0e} FLOPs")
        smooth = np.geomspace(sizes.min(), sizes.max(), 100)
        axes.plot(smooth, np.polyval(parabola(group), np.log(smooth)), color=color)
        if (best := optimum(group)).inside:
            axes.plot(best.parameters, best.value, "*", color=color, markersize=13, markeredgecolor="k")
    axes.set(
        title=f"IsoFLOP curves: {title}", xlabel="parameters", ylabel="held-out loss (nats per token)", xscale="log"
    )
    _finish(figure, path)


def draw_optima(path: pathlib.Path, optima: Mapping[str, Sequence[Optimum]]) -> None:
    """Draws the best number of parameters and of tokens by budget, with their power laws."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("parameters", "tokens"), strict=True):
        for (label, best), color in zip(optima.items(), COLORS, strict=False):
            flops, values = [one.flops for one in best], [getattr(one, name) for one in best]
            law = power_law(flops, values)
            axes.loglog(flops, values, "o", color=color)
            axes.loglog(flops, [law(c) for c in flops], color=color, label=f"{label}: C^{law.exponent:.2f}")
        axes.set(title=f"best number of {name}", xlabel="budget C (FLOPs)")
        axes.set_xticks(flops, [f"{c:.0e}" for c in flops])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def draw_surface(path: pathlib.Path, title: str, points: Sequence[Point], surface: Surface) -> None:
    """Draws the measured losses against those that the fitted surface gives."""
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    fitted = [surface(point.parameters, point.tokens) for point in points]
    measured = [point.value for point in points]
    shades = [math.log(point.flops) for point in points]
    axes.scatter(fitted, measured, c=shades, cmap="viridis")
    ends = [min(fitted + measured), max(fitted + measured)]
    axes.plot(ends, ends, color="gray", linewidth=0.8)
    s = surface
    law = f"{s.irreducible:.2f} + {s.a:.2g} / N^{s.alpha:.2f} + {s.b:.2g} / D^{s.beta:.2f}"
    axes.set(title=f"{title}\n{law}", xlabel="fitted loss (nats per token)", ylabel="measured loss")
    _finish(figure, path, legend=False)


def _finish(figure: Figure, path: pathlib.Path, *, legend: bool = True) -> None:
    (axes,) = figure.axes
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
