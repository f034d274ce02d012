"""The emoji of a color bitmap font as a TFDS data set."""

import dataclasses
import hashlib
import io
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont, features

from igpt_jax.config import EmojiConfig
from igpt_jax.data.tensorflow import tfds
from igpt_jax.errors import InputError
from igpt_jax.progress import track

_SIDE = 64  # of the stored drawings, unless the config says otherwise
_HELD_OUT = 0.1  # of the base emoji, once for validation and once for the test split
_PERMUTATION_SEED = 0
_INSTALL = "apt-get install fonts-noto-color-emoji unicode-data libfribidi0"
_SKIN_TONES = {chr(code) for code in range(0x1F3FB, 0x1F400)}
_DROPPED = _SKIN_TONES | set("\ufe0f\u200d♀♂")  # also: emoji style, joiner, and the gender signs
# Emoji that differ only in gender but have code points of their own; the first of each group stands for all.
_ONE_BASE = ("🧑👨👩", "🧒👦👧", "🧓👴👵", "🫅🤴👸", "🎅🤶", "🕺💃", "🫄🫃🤰", "👭👫👬")
_NEUTRAL = str.maketrans({other: group[0] for group in _ONE_BASE for other in group[1:]})
# Sequences that show the same as a single emoji.
_SEQUENCES = {"🧑🤝🧑": "👭", "🧑❤💋🧑": "💏", "🧑❤🧑": "💑", "🫱🫲": "🤝", "🧑🎄": "🎅"}

_Example = tuple[int, dict[str, Any]]  # a key and the features


@dataclasses.dataclass(eq=False, kw_only=True)
class EmojiDrawings(tfds.core.BuilderConfig):
    """A font and a list of emoji; the config's name has a hash of both, so another font makes another data set."""

    font: pathlib.Path
    list: pathlib.Path
    labels: str
    side: int


def describe_emoji(config: EmojiConfig) -> EmojiDrawings:
    """Describes the data set that a font and a list of emoji make, for TFDS.

    Args:
      config: the emoji section of the data config, with the paths of the font and the list.

    Returns:
      The builder config; equal files give the same one.

    Raises:
      InputError: a file is missing, the font cannot be read, or Pillow cannot draw emoji of several code points.
    """
    font, listed = (pathlib.Path(path).expanduser() for path in (config.font, config.list))
    for name, path in (("font", font), ("list", listed)):
        if not path.is_file():
            raise InputError(f"data.emoji.{name}={path} is missing; run {_INSTALL}, or set the path of yours")
    if not features.check("raqm"):
        raise InputError(f"Pillow does not find libfribidi, which emoji of several code points need; run {_INSTALL}")
    content = hashlib.sha256(font.read_bytes() + listed.read_bytes()).hexdigest()[:8]
    with _open(font) as opened:
        names = opened["name"]
        family, version = (" ".join((names.getDebugName(field) or "?").split()) for field in (1, 5))
    unicode_version = next((line[11:] for line in _lines(listed) if line.startswith("# Version: ")), "?")
    drawings = EmojiDrawings(
        name=f"{config.labels}-{content}" + (f"-{config.side}" if config.side != _SIDE else ""),
        version="1.0.0",
        description=f"Unicode {unicode_version}'s emoji as {family}, {version}, draws them.",
        font=font,
        list=listed,
        labels=config.labels,
        side=config.side,
    )
    return Emoji.builder_configs.setdefault(drawings.name, drawings)  # TFDS warns about configs that it does not know


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Every fully qualified emoji of a font, trimmed and centered on white.

    Emoji that differ only in skin tone or gender share a base.  A tenth of the bases is for testing, a tenth for
    validation and the rest for training, so that no split has variants of another's emoji.  Of identical drawings, only
    the first is included.  Emoji that the font lacks are left out.  The label is Unicode's group or subgroup.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return self.dataset_info_from_configs(
            description=(
                f"Every fully qualified emoji of a font in {config.side}x{config.side} pixels, trimmed and centered on "
                f"white.  {config.description}"
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(config.side, config.side, 3)),
                    "label": tfds.features.ClassLabel(names=sorted({emoji.label for emoji in _read(config)})),
                    "emoji": tfds.features.Text(),
                    "base": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            homepage="https://unicode.org/reports/tr51/",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[_Example]]:
        drawn = list(_draw(self.builder_config))
        if not drawn:
            raise InputError(f"{self.builder_config.font} draws no emoji of {self.builder_config.list}; choose another")
        bases = sorted({emoji.base for emoji, _ in drawn})
        np.random.RandomState(_PERMUTATION_SEED).shuffle(bases)
        held_out = round(_HELD_OUT * len(bases))
        parts = {"test": bases[:held_out], "validation": bases[held_out : 2 * held_out], "train": bases[2 * held_out :]}
        return {split: self._generate_examples(drawn, set(parts[split])) for split in ("train", "validation", "test")}

    def _generate_examples(self, drawn: list[tuple["_Emoji", np.ndarray]], bases: set[str]) -> Iterator[_Example]:
        for position, (emoji, image) in enumerate(drawn):
            if emoji.base in bases:
                yield position, {"image": image, "label": emoji.label, "emoji": emoji.text, "base": emoji.base}


@dataclasses.dataclass(frozen=True)
class _Emoji:
    text: str
    label: str
    base: str


def base(emoji: str) -> str:
    """The emoji without skin tone and gender, which all its variants share; all families share one."""
    neutral = "".join(c for c in emoji if c not in _DROPPED).translate(_NEUTRAL)
    if len(neutral) > 1 and set(neutral) <= set("🧑🧒"):
        return "👪"
    return _SEQUENCES.get(neutral, neutral) or emoji  # the gender signs are emoji too


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _read(config: EmojiDrawings) -> list[_Emoji]:
    """The fully qualified emoji of a file such as Unicode's emoji-test.txt, in the order of the file."""
    label, listed = "", []
    for line in _lines(config.list):
        if line.startswith(f"# {config.labels}: "):
            label = line.partition(": ")[2]
        points, _, status = line.partition("#")[0].partition(";")
        if status.strip() == "fully-qualified":
            try:
                text = "".join(chr(int(point, 16)) for point in points.split())
            except (ValueError, OverflowError):
                raise InputError(f"{config.list} has the line {line!r}; expected code points in base 16") from None
            listed.append(_Emoji(text, label, base(text)))
    if not listed:
        raise InputError(f"{config.list} lists no fully-qualified emoji; give Unicode's emoji-test.txt")
    return listed


def _open(path: pathlib.Path) -> TTFont:
    try:
        return TTFont(io.BytesIO(path.read_bytes()), fontNumber=0, lazy=True)
    except (TTLibError, OSError) as error:
        raise InputError(f"data.emoji.font={path} is not a font: {error}; give a TrueType file with bitmaps") from None


def _strike(path: pathlib.Path) -> int:
    """The size of the font's largest bitmaps, in pixels per em."""
    with _open(path) as font:
        if "sbix" in font:
            return max(font["sbix"].strikes)
        if "CBLC" in font:
            return max(strike.bitmapSizeTable.ppemY for strike in font["CBLC"].strikes)
    raise InputError(f"data.emoji.font={path} has no color bitmaps (CBDT or sbix tables); give such a font")


def _draw(config: EmojiDrawings) -> Iterator[tuple[_Emoji, np.ndarray]]:
    """Yields each emoji of the font with its drawing, unless an earlier emoji has the same drawing."""
    size = _strike(config.font)
    font = ImageFont.truetype(config.font, size, layout_engine=ImageFont.Layout.RAQM)
    listed = _read(config)
    width, seen = math.ceil(font.getlength(listed[0].text)), set()
    for emoji in track(listed, "drawing emoji", len(listed), "drawing"):
        if font.getlength(emoji.text) > width:  # the font lacks it, and draws its parts side by side
            continue
        picture = Image.new("RGBA", (2 * width, 2 * width))
        ImageDraw.Draw(picture).text((0, 0), emoji.text, font=font, embedded_color=True)
        box = picture.getbbox()
        if box is None:
            continue
        drawing = _center(picture.crop(box), width).resize((config.side, config.side), Image.Resampling.BOX)
        pixels = np.asarray(drawing)
        if pixels.tobytes() not in seen:
            seen.add(pixels.tobytes())
            yield emoji, pixels


def _center(drawing: Image.Image, side: int) -> Image.Image:
    canvas = Image.new("RGB", (max(side, *drawing.size),) * 2, "white")
    left, top = ((whole - part) // 2 for whole, part in zip(canvas.size, drawing.size, strict=True))
    canvas.paste(drawing, (left, top), drawing)
    return canvas
