"""Writes a source as tokens, once, so that training reads no image again."""

import dataclasses
import functools
from typing import Any

from absl import flags

from igpt_jax.commands.palette import source_config
from igpt_jax.config import DataConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.beam import write_tokens_with_beam
from igpt_jax.data.pipeline import examples
from igpt_jax.data.records import Source
from igpt_jax.data.sources import describe_source, load_source, split_names
from igpt_jax.data.token_shards import Stream, write_tokens
from igpt_jax.data.tokenizer import Tokenizer, load_tokenizer
from igpt_jax.errors import InputError
from igpt_jax.storage import as_path

_BATCH = 256  # images


def main(options: flags.FlagValues) -> None:
    """Fills --out with the shards of every split that the source has, the palette and a manifest."""
    for name in ("palette", "out"):
        if not options[name].value:
            raise InputError(f"--{name}=PATH is missing")
    if options.resolution < 1 or options.crops < 0:
        raise InputError(f"--resolution={options.resolution} must be at least 1, and --crops={options.crops} 0 or more")
    data = source_config(options, augmentation=options.augmentation, fold_validation=options.fold_validation)
    palette, out = load_tokenizer(options.palette), as_path(options.out)
    if options.resolution % palette.scale:
        raise InputError(f"--resolution={options.resolution} is no multiple of the {palette.scale} pixels of a code")
    encoding = Encoding(data, palette, options.resolution, options.crops, options.seed)
    images = encoding.images()
    if options.beam is not None:
        write_tokens_with_beam(out, palette, encoding.facts(), encoding, options.beam)
    else:
        splits = {split: (count, encoding.stream(split)) for split, count in images.items()}
        write_tokens(out, palette, encoding.facts(), splits)
    print(f"{out}: " + ", ".join(f"{count:,} {split}" for split, count in images.items()) + " images as tokens")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How images become tokens: all that another process needs to know to write a part of them."""

    data: DataConfig
    palette: Tokenizer
    resolution: int  # of the images, in pixels
    crops: int  # of each training image; 0: one central crop
    seed: int  # of the crops

    def images(self) -> dict[str, int]:
        """How many images each split has, counting every crop."""
        return {split: len(self._source(split)) * self._epochs(split) for split in split_names(self.data)}

    def stream(self, split: str) -> Stream:
        """The images of a split as tokens."""
        training, central = augmentations(self.data, self.resolution)
        return lambda start: examples(
            self._source(split),
            _remembered(self.palette),
            training if split == "train" and self.crops else central,
            batch_size=_BATCH,
            epochs=self._epochs(split),
            seed=self.seed,
            start=start,
            max_skipped=self.data.tolerated,
        )

    def facts(self) -> dict[str, Any]:
        """What the manifest says about the tokens."""
        data = self.data
        side = self.resolution // self.palette.scale
        facts = {"source": data.name, "resolution": side, "classes": self._source("train").classes}
        facts |= {"augmentation": data.augmentation, "crops": self.crops, "seed": self.seed}
        facts |= {"filter": data.filter, "fold_validation": data.fold_validation}
        if description := describe_source(data):
            facts["emoji"] = description
        return facts

    def _source(self, split: str) -> Source:
        return _open(self.data, split)

    def _epochs(self, split: str) -> int:
        return self.crops if split == "train" and self.crops else 1


# A process opens a source, and makes the table of a palette, once for all its shards.
_open = functools.cache(load_source)
_remembered = functools.cache(lambda palette: palette)
