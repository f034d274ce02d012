"""Fits a palette to the training images of a source and draws it."""

from typing import Any

from absl import flags

from igpt_jax.config import EMBEDDED, DataConfig, EmojiConfig
from igpt_jax.data import kmeans
from igpt_jax.data.augment import augmentations
from igpt_jax.data.colors import count_colors
from igpt_jax.data.pipeline import originals
from igpt_jax.data.sources import load_source
from igpt_jax.errors import InputError
from igpt_jax.files import make_directory
from igpt_jax.report.sheets import plot_palette
from igpt_jax.storage import as_path

_SHOWN = 12  # training images


def main(options: flags.FlagValues) -> None:
    """Writes --out (.npy) and, beside it, a picture of the colors and of images before and after them (.png)."""
    if not 2 <= options.size <= 65536:
        raise InputError(f"--size={options.size} must lie in 2 to 65536")
    for name in ("pixels", "iterations", "resolution"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name}={getattr(options, name)} must be at least 1")
    out = as_path(options.out)
    if out.suffix != ".npy":
        raise InputError(f"--out={out} must end in .npy")
    data = source_config(options)
    source = load_source(data, "train")
    _, central = augmentations(data, options.resolution)
    colors, counts = count_colors(source, central, pixels=options.pixels, seed=options.seed, max_skipped=data.tolerated)
    palette, report = kmeans.fit(colors, options.size, counts=counts, seed=options.seed, iterations=options.iterations)
    make_directory(out.parent)
    palette.save(out)
    shown = next(originals(source, central, batch_size=_SHOWN, max_skipped=data.tolerated, shuffle_seed=options.seed))
    plot_palette(out.with_suffix(".png"), palette, shown["image"])
    print(f"{out}: {report.describe(palette)}, hash {palette.hash}")


def source_config(options: flags.FlagValues, **settings: Any) -> DataConfig:
    """The flags that say where images come from, as the data section of a config."""
    if not options.source or options.source.startswith("tokens:"):
        raise InputError(
            f"--source={options.source} names no images; give {', '.join(EMBEDDED)}, a TFDS image set, or folder:PATH"
        )
    return DataConfig(
        name=options.source,
        directory=options.directory,
        filter=options.filter,
        on_error=options.on_error,
        emoji=EmojiConfig(
            font=options.emoji_font,
            list=options.emoji_list,
            labels=options.emoji_labels,
            side=options.emoji_side,
        ),
        **settings,
    )
