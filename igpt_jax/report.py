"""Pictures of a run, for people who would rather look than read: curves by matplotlib, image sheets pixel by pixel."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from igpt_jax.data.palette import Palette

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


def plot_palette(path: pathlib.Path, palette: Palette, images: np.ndarray) -> None:
    """Shows the colours, dark to light, and `images` (b, r, r, 3) uint8 above their quantised selves."""
    colors = np.rint(127.5 * (palette.colors + 1)).astype(np.uint8)
    columns = min(32, len(colors))
    blank = np.full((-len(colors) % columns, 3), 255, np.uint8)
    swatches = np.concatenate([colors, blank]).reshape(-1, columns, 3)
    quantised = palette.decode(palette.encode(images))
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 2))
    top.imshow(swatches, aspect="auto")
    top.set_title(f"{len(colors)} colours", fontsize=10)
    top.set(xticks=[], yticks=[])
    bottom.imshow(tile(np.stack([images, quantised])))
    bottom.set_title("originals above, quantised below", fontsize=10)
    bottom.set_axis_off()
    _save(figure, path)


def plot_samples(path: pathlib.Path, images: np.ndarray) -> None:
    """Shows b images (b, r, r, 3) uint8 in a square sheet."""
    side = int(len(images) ** 0.5)
    sheet = tile(images[: side * side].reshape(side, side, *images.shape[1:]))
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet)
    axes.set_axis_off()
    _save(figure, path)


def plot_completions(
    path: pathlib.Path, palette: Palette, originals_bt: np.ndarray, completions_bnt: np.ndarray, hidden_bt: np.ndarray
) -> None:
    """Shows, a row an image, what was given (the rest gray), its n completions, and the original; all as tokens."""
    originals = palette.decode(originals_bt)
    given = np.where(hidden_bt.reshape(*originals.shape[:3], 1), np.uint8(127), originals)
    completions = np.stack([palette.decode(tokens_nt) for tokens_nt in completions_bnt])
    rows = np.concatenate([given[:, None], completions, originals[:, None]], axis=1)
    b, columns = rows.shape[:2]
    figure = Figure(figsize=(1.1 * columns, 1.1 * b + 0.3), layout="constrained")
    grid = figure.subplots(b, columns, squeeze=False)
    titles = ["given", *["completion"] * (columns - 2), "original"]
    for images, row in zip(rows, grid, strict=True):
        for image, axes in zip(images, row, strict=True):
            axes.imshow(image)
            axes.set_axis_off()
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    _save(figure, path)


def tile(images: np.ndarray) -> np.ndarray:
    """Lays (rows, columns, r, r, 3) uint8 images out on a white sheet, one pixel between them."""
    framed = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    rows, columns, height, width, _ = framed.shape
    return framed.swapaxes(1, 2).reshape(rows * height, columns * width, 3)[:-1, :-1]


def _axes(title, x, y):
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def _save(figure, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
