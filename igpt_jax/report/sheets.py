"""Sheets of images, pixel by pixel: samples, completions, surprises, neighbors, and an animation of the drawing."""

import pathlib
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from igpt_jax.data.palette import Palette
from igpt_jax.files import atomic_write, make_directory

VISIBLE = 96  # pixels a side that an image is enlarged to, about
GRAY = np.uint8(127)  # stands for what is hidden or not yet drawn


def plot_palette(path: pathlib.Path, palette: Palette, images: np.ndarray) -> None:
    """Shows the colors, dark to light, and `images` (b, r, r, 3) uint8 above their quantized selves."""
    colors = np.rint(127.5 * (palette.colors + 1)).astype(np.uint8)
    columns = min(32, len(colors))
    blank = np.full((-len(colors) % columns, 3), 255, np.uint8)
    swatches = np.concatenate([colors, blank]).reshape(-1, columns, 3)
    quantized = palette.decode(palette.encode(images))
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, height_ratios=(1, 2))
    top.imshow(swatches, aspect="auto")
    top.set_title(f"{len(colors)} colors", fontsize=10)
    top.set(xticks=[], yticks=[])
    bottom.imshow(tile(np.stack([images, quantized])))
    bottom.set_title("originals above, quantized below", fontsize=10)
    bottom.set_axis_off()
    _save(figure, path)


def save_samples(path: pathlib.Path, images: np.ndarray) -> None:
    """Shows b images (b, r, r, 3) uint8 in a sheet about as wide as high, in their order, every pixel a square."""
    make_directory(path.parent)
    with atomic_write(path) as partial:
        Image.fromarray(enlarge(tile(_square(images)), images.shape[1])).save(partial)


def save_drawing(path: pathlib.Path, images: np.ndarray, passes_bt: np.ndarray, frames: int = 48) -> None:
    """Animates b images as they were drawn, a GIF; passes_bt (b, r*r) is the pass each pixel came in, 0 if given."""
    r = images.shape[1]
    pictures = []
    for drawn in np.unique(np.linspace(0, passes_bt.max(), frames).astype(int)):
        hidden = (passes_bt > drawn).reshape(-1, r, r, 1)
        picture = enlarge(tile(_square(np.where(hidden, GRAY, images))), r)
        pictures.append(Image.fromarray(picture).quantize(256))
    make_directory(path.parent)
    durations = [80] * (len(pictures) - 1) + [2000]  # ms
    with atomic_write(path) as partial:
        pictures[0].save(partial, save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def plot_passes(path: pathlib.Path, images: np.ndarray, passes_bt: np.ndarray) -> None:
    """Shows b images (b, r, r, 3) above maps of how many pixels the pass drew in which each of theirs came.

    passes_bt (b, r*r) is that pass, 0 if the pixel was given: gray in the map.
    """
    b, r = images.shape[:2]
    counts_bt = np.stack([np.bincount(passes_t)[passes_t] for passes_t in passes_bt])
    maps = np.ma.masked_array(counts_bt, passes_bt == 0).reshape(b, r, r)
    columns = min(b, 6)
    rows = -(-b // columns)
    figure = Figure(figsize=(1.5 * columns + 0.8, 3.0 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    colors = mpl.colormaps["viridis"].with_extremes(bad="gray")
    for i in range(b):
        above, below = grid[2 * (i // columns) :, i % columns][:2]
        above.imshow(images[i])
        heat = below.imshow(maps[i], cmap=colors, vmin=1, vmax=max(2, maps.max()))
        below.set_title(f"{(passes_bt[i] > 0).sum() / passes_bt[i].max():.2f} a pass", fontsize=8)
    figure.colorbar(heat, ax=grid, label="pixels drawn in the same pass")
    _save(figure, path)


def plot_completions(
    path: pathlib.Path, palette: Palette, originals_bt: np.ndarray, completions_bnt: np.ndarray, hidden_bt: np.ndarray
) -> None:
    """Shows, a row an image, what was given (the rest gray), its n completions, and the original; all as tokens."""
    originals = palette.decode(originals_bt)
    given = np.where(hidden_bt.reshape(*originals.shape[:3], 1), GRAY, originals)
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


def plot_surprise(path: pathlib.Path, images: np.ndarray, nats: np.ndarray) -> None:
    """Shows every image (b, r, r, 3) beside the surprise of its pixels, (b, r, r) in nats, on one scale."""
    b = len(nats)
    columns = min(b, 6)
    rows = -(-b // columns)
    figure = Figure(figsize=(2.2 * columns + 0.8, 1.2 * rows + 0.6), layout="constrained")
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i in range(b):
        left, right = grid[i // columns, 2 * (i % columns) :][:2]
        left.imshow(images[i])
        heat = right.imshow(nats[i], cmap="inferno", vmin=0, vmax=nats.max())
        right.set_title(f"{nats[i].mean():.2f}", fontsize=8)
    figure.colorbar(heat, ax=grid, label="nats a pixel; above each map their mean")
    _save(figure, path)


def plot_neighbors(path: pathlib.Path, samples: np.ndarray, neighbors: np.ndarray, rms: Sequence[float]) -> None:
    """Shows samples (b, r, r, 3) above their nearest training images, with the distance between them."""
    b = len(samples)
    columns = min(b, 12)
    rows = -(-b // columns)
    figure = Figure(figsize=(0.9 * columns, 2.0 * rows), layout="constrained")
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i in range(b):
        above, below = grid[2 * (i // columns) :, i % columns][:2]
        above.imshow(samples[i])
        below.imshow(neighbors[i])
        below.set_title(f"{rms[i]:.0f}", fontsize=8)
    figure.suptitle("samples above their nearest training images (root mean square difference, 0-255)", fontsize=9)
    _save(figure, path)


def tile(images: np.ndarray) -> np.ndarray:
    """Lays (rows, columns, r, r, 3) uint8 images out on a white sheet, one pixel between them."""
    framed = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    rows, columns, height, width, _ = framed.shape
    return framed.swapaxes(1, 2).reshape(rows * height, columns * width, 3)[:-1, :-1]


def enlarge(picture: np.ndarray, resolution: int) -> np.ndarray:
    """Makes every pixel a square, so that images of that resolution become about `VISIBLE` pixels wide."""
    scale = max(1, round(VISIBLE / resolution))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def _square(images):
    """(b, r, r, 3) as rows and columns, white where the last row has none left."""
    columns = int(np.ceil(len(images) ** 0.5))
    missing = -len(images) % columns
    blank = np.full((missing, *images.shape[1:]), 255, np.uint8)
    return np.concatenate([images, blank]).reshape(-1, columns, *images.shape[1:])


def _save(figure, path):
    make_directory(path.parent)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=150)
