"""Plots of a run and of experiments: loss by step, probe accuracy by layer and by number of labels, costs."""

import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from matplotlib.transforms import ScaledTranslation

from igpt_jax.report.figures import save_figure

INK, ACCENT, MUTED = "#222222", "#1f6f8b", "#999999"


def plot_loss(path: pathlib.Path, metrics: Sequence[Mapping[str, float]], split: str, palette_size: int) -> None:
    """Plots the training loss and the held-out loss by step.

    Args:
      path: the file to write; its suffix chooses the format.
      metrics: the lines of the metrics file, each with "step" and any of "nats_per_token" and "SPLIT/nats_per_token".
      split: the split of the held-out loss, such as "test".
      palette_size: number of colors v; the title shows ln(v), the loss of a uniform guess in nats per token.
    """
    title = f"Loss (a uniform guess over {palette_size} colors: {np.log(palette_size):.2f})"
    figure, axes = _axes(title, "step", "nats per token")
    for name, label, color in (("nats_per_token", "training", MUTED), (f"{split}/nats_per_token", split, ACCENT)):
        points = [(line["step"], line[name]) for line in metrics if name in line]
        axes.plot(*zip(*points, strict=True), color=color, label=label, marker="o" if len(points) < 20 else None)
    axes.legend(frameon=False)
    save_figure(figure, path)


def plot_probe(
    path: pathlib.Path, layers: Sequence[int], curves: Mapping[str, Sequence[float]], baselines: Mapping[str, float]
) -> None:
    """Plots linear probe accuracy by layer, with baselines as horizontal lines.

    Args:
      path: the file to write; its suffix chooses the format.
      layers: the layers, as numbers on the x axis.
      curves: for each name, the test accuracy in percent of each layer.
      baselines: for each name, a test accuracy in percent.

    Reference:
      Paper, figure 2.
    """
    figure, axes = _axes("Linear probe", "layer of the features", "test accuracy (%)")
    for (name, accuracies), color in zip(curves.items(), (ACCENT, MUTED), strict=False):
        axes.plot(layers, accuracies, color=color, marker="o", label=name)
    for layer, accuracy in zip(layers, next(iter(curves.values())), strict=True):
        axes.annotate(f"{accuracy:.1f}", (layer, accuracy), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    for (name, accuracy), style in zip(baselines.items(), ("--", ":", "-."), strict=False):
        axes.axhline(accuracy, color=INK, linewidth=0.8, linestyle=style, label=f"{name}: {accuracy:.1f}")
    axes.set_xticks(list(layers))
    axes.set_ylim(0, 105)
    axes.legend(frameon=False)
    save_figure(figure, path)


def plot_low_data(path: pathlib.Path, labels: Sequence[int], curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Plots the accuracy of linear probes that are trained on few labels.

    Args:
      path: the file to write; its suffix chooses the format.
      labels: numbers of labeled images per class, on the x axis.
      curves: for each name, a mapping for each number of labels with "accuracy" and "std", in percent.

    Reference:
      Paper, table 4.
    """
    figure, axes = _axes("Linear probe of few labels", "labeled images a class", "test accuracy (%)")
    for (name, rows), color in zip(curves.items(), (ACCENT, MUTED), strict=True):
        accuracies, deviations = [row["accuracy"] for row in rows], [row["std"] for row in rows]
        axes.errorbar(labels, accuracies, deviations, color=color, marker="o", capsize=3, label=name)
    axes.set_xscale("log")
    axes.set_xticks(list(labels), [str(n) for n in labels])
    axes.minorticks_off()
    axes.set_ylim(0, 105)
    axes.legend(frameon=False, loc="lower right")
    save_figure(figure, path)


def plot_growth(path: pathlib.Path, title: str, curves: Mapping[tuple[str, str], Mapping[int, float]]) -> None:
    """Plots how costs grow with sizes: one plot for each pair, two in a row, on logarithmic axes.

    A cost that grows by less than a factor of 2 gets a linear axis from 0.

    Args:
      path: the file to write; its suffix chooses the format.
      title: title of the figure.
      curves: for each (name of the size, name of the cost), the cost by size; an even number of them.
    """
    figure = Figure(figsize=(7, 1.5 * len(curves)), layout="constrained")
    figure.suptitle(title)
    for axes, ((size, cost), curve) in zip(figure.subplots(len(curves) // 2, 2).flat, curves.items(), strict=True):
        axes.loglog(*zip(*curve.items(), strict=True), color=ACCENT, marker="o")
        if max(curve.values()) < 2 * min(curve.values()):
            axes.set_yscale("linear")
            axes.set_ylim(0, 1.2 * max(curve.values()))
        else:
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xticks(list(curve), [f"{n:,}" for n in curve])
        axes.minorticks_off()
        axes.set_xlabel(size)
        axes.set_title(cost, fontsize=10, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def plot_curves(
    path: pathlib.Path,
    title: str,
    x: str,
    y: str,
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    *,
    falls: bool = False,
    baselines: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Plots up to three curves with error bars, which stand side by side where their x are equal.

    Args:
      path: the file to write; its suffix chooses the format.
      title: title of the plot.
      x: label of the x axis.
      y: label of the y axis.
      curves: for each name, points (x, y, standard deviation of y).
      falls: whether the x axis falls from left to right.
      baselines: for each name, the y of a horizontal line; at most three.
    """
    figure, axes = _axes(title, x, y)
    for i, ((name, points), color) in enumerate(zip(curves.items(), (MUTED, INK, ACCENT)[-len(curves) :], strict=True)):
        xs, ys, deviations = zip(*points, strict=True)
        beside = axes.transData + ScaledTranslation((i - (len(curves) - 1) / 2) / 20, 0, figure.dpi_scale_trans)
        line, caps, bars = axes.errorbar(xs, ys, deviations, color=color, marker="^so"[i], capsize=3, label=name)
        for artist in (line, *caps, *bars):
            artist.set_transform(beside)
    for (name, height), line in zip(baselines.items(), ("--", ":", "-."), strict=False):
        axes.axhline(height, color=INK, linewidth=0.8, linestyle=line, label=name)
    if falls:
        axes.invert_xaxis()
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)


def plot_bars(path: pathlib.Path, title: str, y: str, bars: Mapping[str, tuple[float, float]]) -> None:
    """Plots bars with error bars and their heights as text.

    Args:
      path: the file to write; its suffix chooses the format.
      title: title of the plot.
      y: label of the y axis.
      bars: for each name, (height, standard deviation).
    """
    figure, axes = _axes(title, "", y)
    figure.set_size_inches(max(6, 1.3 * len(bars)), 4.2)
    heights, deviations = zip(*bars.values(), strict=True)
    axes.bar(range(len(bars)), heights, yerr=deviations, color=ACCENT, ecolor=INK, capsize=3, width=0.6)
    for i, (height, deviation) in enumerate(bars.values()):
        axes.annotate(f"{height:.1f}", (i, height + deviation), (0, 3), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(bars)), list(bars), fontsize=8)
    axes.set_ylim(bottom=0)
    save_figure(figure, path)


def plot_shares(path: pathlib.Path, title: str, shares: Mapping[str, Mapping[str, float]]) -> None:
    """Plots one stacked horizontal bar for each name.

    Args:
      path: the file to write; its suffix chooses the format.
      title: title of the plot.
      shares: for each name, the share of each part, as a fraction of 1; at most three parts.
    """
    figure, axes = _axes(title, "", "")
    axes.grid(False)
    figure.set_size_inches(9, 1.4 + 0.6 * len(shares))
    parts = list(dict.fromkeys(part for bar in shares.values() for part in bar))
    left = np.zeros(len(shares))
    for part, color, ink in zip(parts, (ACCENT, "#8fbcc9", "#bbbbbb"), ("w", INK, INK), strict=False):
        widths = np.array([100 * bar.get(part, 0.0) for bar in shares.values()])
        bars = axes.barh(range(len(shares)), widths, left=left, color=color, label=part, height=0.6)
        axes.bar_label(bars, [f"{width:.0f}" if width > 3 else "" for width in widths], label_type="center", color=ink)
        left += widths
    axes.set_yticks(range(len(shares)), list(shares), fontsize=8)
    axes.invert_yaxis()
    axes.legend(frameon=False, ncols=len(parts), fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.1))
    save_figure(figure, path)


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes
