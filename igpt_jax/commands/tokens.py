"""Writes a source as tokens, once, so that training reads no image again."""

import functools
from collections.abc import Iterator

from absl import flags

from igpt_jax.commands.palette import source_config
from igpt_jax.data.augment import Augmentation, augmentations
from igpt_jax.data.builders import describe_emoji
from igpt_jax.data.palette import Palette
from igpt_jax.data.pipeline import examples
from igpt_jax.data.records import Source
from igpt_jax.data.sources import load_source, split_names
from igpt_jax.data.token_files import write_tokens
from igpt_jax.errors import InputError
from igpt_jax.storage import as_path
from igpt_jax.types import HostBatch

_BATCH = 256  # images


def main(options: flags.FlagValues) -> None:
    """Fills --out with the shards of every split that the source has, the palette and a manifest."""
    for name in ("palette", "out"):
        if not options[name].value:
            raise InputError(f"--{name}=PATH is missing")
    if options.resolution < 1 or options.crops < 0:
        raise InputError(f"--resolution={options.resolution} must be at least 1, and --crops={options.crops} 0 or more")
    data = source_config(options, augmentation=options.augmentation, fold_validation=options.fold_validation)
    palette = Palette.load(options.palette)
    training, central = augmentations(data, options.resolution)
    sources = {split: load_source(data, split) for split in split_names(data)}
    splits = {}
    for split, source in sources.items():
        crops = options.crops if split == "train" else 0
        stream = functools.partial(
            _stream, source, palette, training if crops else central, crops or 1, options.seed, data.tolerated
        )
        splits[split] = len(source) * (crops or 1), stream
    facts = {"source": data.name, "resolution": options.resolution, "classes": sources["train"].classes}
    facts |= {"augmentation": data.augmentation, "crops": options.crops, "seed": options.seed}
    facts |= {"filter": data.filter, "fold_validation": data.fold_validation, "on_error": data.on_error}
    if data.name == "emoji":
        facts["emoji"] = describe_emoji(data.emoji).description
    out = as_path(options.out)
    write_tokens(out, palette, facts, splits)
    print(f"{out}: " + ", ".join(f"{images:,} {split}" for split, (images, _) in splits.items()) + " images as tokens")


def _stream(
    source: Source,
    palette: Palette,
    augmentation: Augmentation,
    epochs: int,
    seed: int,
    max_skipped: int,
    start: int,
) -> Iterator[HostBatch]:
    return examples(
        source,
        palette,
        augmentation,
        batch_size=_BATCH,
        epochs=epochs,
        seed=seed,
        start=start,
        max_skipped=max_skipped,
    )
