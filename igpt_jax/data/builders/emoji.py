"""The emoji of a color bitmap font as a TFDS data set."""

import dataclasses
import hashlib
import io
import math
import pathlib

import numpy as np
import tqdm
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont, features

from igpt_jax.config import EmojiConfig
from igpt_jax.data.tensorflow import tfds
from igpt_jax.errors import InputError

_SIDE = 64  # pixels of a drawing as it is kept
_HELD_OUT = 0.1  # of the base emoji, for validation and for the test each
_PERMUTATION_SEED = 0
_INSTALL = "apt-get install fonts-noto-color-emoji unicode-data libfribidi0"
_SKIN_TONES = {chr(code) for code in range(0x1F3FB, 0x1F400)}
_DROPPED = _SKIN_TONES | set("\ufe0f\u200d♀♂")  # also: emoji style, joiner, and the genders' signs
# Genders with code points of their own.
_ONE_BASE = ("🧑👨👩", "🧒👦👧", "🧓👴👵", "🫅🤴👸", "🎅🤶", "🕺💃", "🫄🫃🤰", "👭👫👬")
_NEUTRAL = str.maketrans({other: first for first, *others in _ONE_BASE for other in others})
_SEQUENCES = {"🧑🤝🧑": "👭", "🧑❤💋🧑": "💏", "🧑❤🧑": "💑", "🫱🫲": "🤝", "🧑🎄": "🎅"}


@dataclasses.dataclass(eq=False)
class EmojiDrawings(tfds.core.BuilderConfig):
    """One font and one list of emoji; the name of the config holds a hash of both, so a new font is drawn anew."""

    font: pathlib.Path | None = None
    list: pathlib.Path | None = None
    labels: str = "group"


def describe_emoji(config: EmojiConfig) -> EmojiDrawings:
    """Finds the font and the list, and says which they are.

    Raises:
      InputError: one is missing or not what it should be, or Pillow cannot draw sequences.
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
        name=f"{config.labels}-{content}",
        version="1.0.0",
        description=f"Unicode {unicode_version}'s emoji as {family}, {version}, draws them.",
        font=font,
        list=listed,
        labels=config.labels,
    )
    return Emoji.builder_configs.setdefault(drawings.name, drawings)  # TFDS warns of those that it does not know


class Emoji(tfds.core.GeneratorBasedBuilder):
    """Every fully qualified emoji of a font in 64x64 pixels, trimmed and centered on white.

    Emoji that differ only in skin tone or gender have one base; a tenth of the bases is for the test, a tenth for
    validation and the rest for training.  Of equal drawings, the first is taken.  Emoji that the font lacks are left
    out.  The label is Unicode's group or subgroup.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        config = self.builder_config
        return self.dataset_info_from_configs(
            description=f"{self.__doc__.splitlines()[0]}  {config.description}",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(_SIDE, _SIDE, 3)),
                    "label": tfds.features.ClassLabel(names=sorted({emoji.label for emoji in _read(config)})),
                    "emoji": tfds.features.Text(),
                    "base": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            homepage="https://unicode.org/reports/tr51/",
        )

    def _split_generators(self, dl_manager):
        drawn = list(_draw(self.builder_config))
        if not drawn:
            raise InputError(f"{self.builder_config.font} draws no emoji of {self.builder_config.list}; choose another")
        bases = sorted({emoji.base for emoji, _ in drawn})
        np.random.RandomState(_PERMUTATION_SEED).shuffle(bases)
        held_out = round(_HELD_OUT * len(bases))
        parts = {"test": bases[:held_out], "validation": bases[held_out : 2 * held_out], "train": bases[2 * held_out :]}
        return {split: self._generate_examples(drawn, set(parts[split])) for split in ("train", "validation", "test")}

    def _generate_examples(self, drawn, bases):
        for place, (emoji, image) in enumerate(drawn):
            if emoji.base in bases:
                yield place, {"image": image, "label": emoji.label, "emoji": emoji.text, "base": emoji.base}


@dataclasses.dataclass(frozen=True)
class _Emoji:
    text: str
    label: str
    base: str


def base(emoji: str) -> str:
    """What an emoji has in common with those of other skin tones and genders; families are all one."""
    neutral = "".join(c for c in emoji if c not in _DROPPED).translate(_NEUTRAL)
    if len(neutral) > 1 and set(neutral) <= set("🧑🧒"):
        return "👪"
    return _SEQUENCES.get(neutral, neutral) or emoji  # the genders' signs are emoji too


def _lines(path):
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _read(config):
    """The fully qualified emoji of a file such as Unicode's emoji-test.txt, in its order."""
    label, found = "", []
    for line in _lines(config.list):
        if line.startswith(f"# {config.labels}: "):
            label = line.partition(": ")[2]
        points, _, status = line.partition("#")[0].partition(";")
        if status.strip() == "fully-qualified":
            try:
                text = "".join(chr(int(point, 16)) for point in points.split())
            except (ValueError, OverflowError):
                raise InputError(f"{config.list} has the line {line!r}; expected code points in base 16") from None
            found.append(_Emoji(text, label, base(text)))
    if not found:
        raise InputError(f"{config.list} lists no fully-qualified emoji; give Unicode's emoji-test.txt")
    return found


def _open(path):
    try:
        return TTFont(io.BytesIO(path.read_bytes()), fontNumber=0, lazy=True)
    except (TTLibError, OSError) as error:
        raise InputError(f"data.emoji.font={path} is no font: {error}; give a TrueType file with bitmaps") from None


def _strike(path):
    """The size of the font's largest bitmaps, in pixels an em."""
    with _open(path) as font:
        if "sbix" in font:
            return max(font["sbix"].strikes)
        if "CBLC" in font:
            return max(strike.bitmapSizeTable.ppemY for strike in font["CBLC"].strikes)
    raise InputError(f"data.emoji.font={path} has no color bitmaps (CBDT or sbix tables); give such a font")


def _draw(config):
    """Yields each emoji that the font has with its drawing, unless an emoji before it has the same."""
    size = _strike(config.font)
    font = ImageFont.truetype(config.font, size, layout_engine=ImageFont.Layout.RAQM)
    listed = _read(config)
    width, seen = math.ceil(font.getlength(listed[0].text)), set()
    for emoji in tqdm.tqdm(listed, desc="emoji", leave=False, disable=None):
        if font.getlength(emoji.text) > width:  # what the font lacks comes as several emoji side by side
            continue
        picture = Image.new("RGBA", (2 * width, 2 * width))
        ImageDraw.Draw(picture).text((0, 0), emoji.text, font=font, embedded_color=True)
        box = picture.getbbox()
        if box is None:
            continue
        drawing = _center(picture.crop(box), width).resize((_SIDE, _SIDE), Image.Resampling.BOX)
        pixels = np.asarray(drawing)
        if pixels.tobytes() not in seen:
            seen.add(pixels.tobytes())
            yield emoji, pixels


def _center(drawing, side):
    canvas = Image.new("RGB", (max(side, *drawing.size),) * 2, "white")
    corner = [(whole - part) // 2 for whole, part in zip(canvas.size, drawing.size, strict=True)]
    canvas.paste(drawing, corner, drawing)
    return canvas
