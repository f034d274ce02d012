"""Sheets of images: the palette, samples, completions, surprise, nearest neighbors, and an animation of sampling."""

import pathlib
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from igpt_jax.data.palette import Palette
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.files import atomic_write, make_directory
from igpt_jax.report.figures import save_figure

VISIBLE = 96  # approximate side of an enlarged image, in pixels
GRAY = np.uint8(127)  # marks pixels that are hidden or not yet sampled


def plot_palette(path: pathlib.Path, palette: Palette, images: np.ndarray) -> None:
    """Shows the colors of a palette in order, and some images above their quantized versions.

    Args:
      path: the file to write; its suffix chooses the format.
      palette: the palette.
      images: (b, r, r, 3) uint8 RGB in 0..255.
    """
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
    save_figure(figure, path)


def plot_reconstructions(path: pathlib.Path, images: np.ndarray, reconstructions: np.ndarray) -> None:
    """Shows images above what a codec makes of them, in their own size, in two rows.

    Args:
      path: the PNG file to write.
      images: (b, r, r, 3) uint8 RGB in 0..255.
      reconstructions: likewise.
    """
    make_directory(path.parent)
    half = -(-len(images) // 2)
    pairs = np.stack([images, reconstructions])
    padded = np.pad(pairs, [(0, 0), (0, 2 * half - len(images)), *[(0, 0)] * 3], constant_values=255)
    rows = padded.reshape(2, 2, half, *images.shape[1:]).swapaxes(0, 1).reshape(4, half, *images.shape[1:])
    with atomic_write(path) as partial:
        Image.fromarray(enlarge(tile(rows), images.shape[1])).save(partial)


def save_samples(path: pathlib.Path, images: np.ndarray) -> None:
    """Shows images in order, enlarged, on an approximately square sheet.

    Args:
      path: the PNG file to write.
      images: (b, r, r, 3) uint8 RGB in 0..255.
    """
    make_directory(path.parent)
    with atomic_write(path) as partial:
        Image.fromarray(enlarge(tile(_square(images)), images.shape[1])).save(partial)


def save_drawing(path: pathlib.Path, images: np.ndarray, passes_bt: np.ndarray, frames: int = 48) -> None:
    """Animates how images were sampled, pass by pass.

    Args:
      path: the GIF file to write.
      images: (b, r, r, 3) uint8 RGB in 0..255.
      passes_bt: (b, t*t) integers, the forward pass in which each token was sampled; 0 if it was given.
      frames: most frames of the animation.
    """
    r = images.shape[1]
    arrays = []
    for last_pass in np.unique(np.linspace(0, passes_bt.max(), frames).astype(int)):
        hidden = to_pixels(passes_bt > last_pass, r)
        arrays.append(enlarge(tile(_square(np.where(hidden[..., None], GRAY, images))), r))
    # With the same colors in every frame, a frame stores only what is new in it.
    colors = Image.fromarray(np.concatenate([arrays[0], arrays[-1]])).quantize(256)
    pictures = [Image.fromarray(array).quantize(palette=colors, dither=Image.Dither.NONE) for array in arrays]
    make_directory(path.parent)
    durations = [80] * (len(pictures) - 1) + [2000]  # ms
    with atomic_write(path) as partial:
        pictures[0].save(partial, save_all=True, append_images=pictures[1:], duration=durations, loop=0)


def plot_passes(path: pathlib.Path, images: np.ndarray, passes_bt: np.ndarray) -> None:
    """Shows each image above a map of how many of its tokens were sampled in the same forward pass as each of them.

    Args:
      path: the file to write; its suffix chooses the format.
      images: (b, r, r, 3) uint8 RGB in 0..255.
      passes_bt: (b, t*t) integers, the forward pass in which each token was sampled; 0 if it was given, which the map
        shows in gray.
    """
    b, side = len(images), round(passes_bt.shape[1] ** 0.5)
    counts_bt = np.stack([np.bincount(passes_t)[passes_t] for passes_t in passes_bt])
    maps = np.ma.masked_array(counts_bt, passes_bt == 0).reshape(b, side, side)
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
    figure.colorbar(heat, ax=grid, label="tokens in the same pass")
    save_figure(figure, path)


def plot_completions(
    path: pathlib.Path, palette: Tokenizer, originals_bt: np.ndarray, completions_bnt: np.ndarray, hidden_bt: np.ndarray
) -> None:
    """Shows a row for each image: its given pixels (the others gray), its n completions, and the original.

    Args:
      path: the file to write; its suffix chooses the format.
      palette: the palette or codec that decodes the tokens.
      originals_bt: (b, r*r) int32 tokens of the originals.
      completions_bnt: (b, n, r*r) int32 tokens of the completions.
      hidden_bt: (b, r*r) bool, True where a token was not given.
    """
    originals = palette.decode(originals_bt)
    given = np.where(to_pixels(hidden_bt, originals.shape[1])[..., None], GRAY, originals)
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
    save_figure(figure, path)


def plot_surprise(path: pathlib.Path, images: np.ndarray, nats: np.ndarray) -> None:
    """Shows each image next to a map of the surprise of its pixels, all maps on one scale.

    Args:
      path: the file to write; its suffix chooses the format.
      images: (b, r, r, 3) uint8 RGB in 0..255.
      nats: (b, t, t), the negative log-likelihood of each token in nats.
    """
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
    figure.colorbar(heat, ax=grid, label="nats per pixel")
    save_figure(figure, path)


def plot_neighbors(
    path: pathlib.Path, samples: np.ndarray, neighbors: np.ndarray, rms: Sequence[float] | np.ndarray
) -> None:
    """Shows each sample above its nearest training image, with the distance between them.

    Args:
      path: the file to write; its suffix chooses the format.
      samples: (b, r, r, 3) uint8 RGB in 0..255.
      neighbors: (b, r, r, 3) uint8 RGB, the nearest training image of each sample.
      rms: for each sample, the root mean square difference, on the scale 0..255.
    """
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
    save_figure(figure, path)


def tile(images: np.ndarray) -> np.ndarray:
    """Joins images into one, with white lines of one pixel between them.

    Args:
      images: (rows, columns, r, r, 3) uint8 RGB.

    Returns:
      (rows * (r + 1) - 1, columns * (r + 1) - 1, 3) uint8 RGB.
    """
    framed = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    rows, columns, height, width, _ = framed.shape
    return framed.swapaxes(1, 2).reshape(rows * height, columns * width, 3)[:-1, :-1]


def to_pixels(tokens_bt: np.ndarray, side: int) -> np.ndarray:
    """Repeats the value of every token over its pixels: (b, t*t) in raster order to (b, side, side)."""
    rows = round(tokens_bt.shape[1] ** 0.5)
    scale = side // rows
    return tokens_bt.reshape(-1, rows, rows).repeat(scale, axis=1).repeat(scale, axis=2)


def enlarge(picture: np.ndarray, resolution: int) -> np.ndarray:
    """Repeats every pixel so that images of `resolution` pixels a side become about `VISIBLE` pixels wide."""
    scale = max(1, round(VISIBLE / resolution))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def _square(images: np.ndarray) -> np.ndarray:
    """Arranges (b, r, r, 3) as (rows, columns, r, r, 3), and fills the last row with white images."""
    columns = int(np.ceil(len(images) ** 0.5))
    missing = -len(images) % columns
    blank = np.full((missing, *images.shape[1:]), 255, np.uint8)
    return np.concatenate([images, blank]).reshape(-1, columns, *images.shape[1:])
