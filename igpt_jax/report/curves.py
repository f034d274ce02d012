"""Curves of a run: loss over steps, probe accuracy over layers."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from igpt_jax.files import replacing

INK, ACCENT, MUTED = "#222222", "#1f6f8b", "#999999"


def plot_loss(path: pathlib.Path, metrics: Sequence[Mapping[str, float]], split: str, palette_size: int) -> None:
    """Draws training and held-out loss over steps, in nats per token, and names the ln(v) of a uniform guess."""
    title = f"Loss (a uniform guess over {palette_size} colours: {np.log(palette_size):.2f})"
    figure, axes = _axes(title, "step", "nats per token")
    for name, label, color in (("nats_per_token", "training", MUTED), (f"{split}/nats_per_token", split, ACCENT)):
        points = [(line["step"], line[name]) for line in metrics if name in line]
        axes.plot(*zip(*points, strict=True), color=color, label=label, marker="o" if len(points) < 20 else None)
    axes.legend(frameon=False)
    _save(figure, path)


def plot_probe(path: pathlib.Path, layers: Sequence[int], accuracies: Sequence[float], baselines: dict) -> None:
    """Draws probe accuracy (per cent) by layer above its baselines, {name: per cent} (the paper's figure 2)."""
    figure, axes = _axes("Linear probe", "layer of the features", "test accuracy (%)")
    axes.plot(layers, accuracies, color=ACCENT, marker="o", label="trained")
    for layer, accuracy in zip(layers, accuracies, strict=True):
        axes.annotate(f"{accuracy:.1f}", (layer, accuracy), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    for (name, accuracy), style in zip(baselines.items(), ("--", ":"), strict=True):
        axes.axhline(accuracy, color=INK, linewidth=0.8, linestyle=style, label=f"{name}: {accuracy:.1f}")
    axes.set_xticks(list(layers))
    axes.set_ylim(0, 105)
    axes.legend(frameon=False, loc="lower center")
    _save(figure, path)


def _axes(title, x, y):
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def _save(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150)
