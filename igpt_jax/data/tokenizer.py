"""What converts images to tokens and back: a palette, whose tokens are pixels, or a codec, whose tokens are patches.

Both have `encode`, `decode`, `hash`, `save`, a length (the vocabulary) and `scale`, the side of a token in pixels.
"""

import os
import pathlib

from igpt_jax.codes.codec import FILE as CODEC
from igpt_jax.codes.codec import Codec
from igpt_jax.data.palette import Palette
from igpt_jax.storage import as_path

PALETTE = "palette.npy"

Tokenizer = Palette | Codec


def load_tokenizer(path: str | os.PathLike) -> Tokenizer:
    """Reads a palette from an .npy file, or a codec from its .safetensors file or workdir.

    Raises:
      InputError: there is neither.
    """
    place = as_path(path)
    return Codec.load(place) if place.suffix == ".safetensors" or place.is_dir() else Palette.load(place)


def tokenizer_file(directory: pathlib.Path) -> pathlib.Path | None:
    """Returns the file of a directory's palette or codec; None if it has neither."""
    return next((directory / name for name in (PALETTE, CODEC) if (directory / name).exists()), None)


def save_tokenizer(tokenizer: Tokenizer, directory: pathlib.Path) -> None:
    """Writes palette.npy or codec.safetensors."""
    tokenizer.save(directory / (CODEC if isinstance(tokenizer, Codec) else PALETTE))


def color_arrays(tokenizer: Tokenizer) -> dict:
    """What an .npz of tokens says about them: "colors" (v, 3) in [-1, 1], or the "codec" by its hash."""
    return {"codec": tokenizer.hash} if isinstance(tokenizer, Codec) else {"colors": tokenizer.colors}
