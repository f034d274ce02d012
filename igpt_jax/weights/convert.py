"""Weights of one format made into another, tensor by tensor, and whole or not at all."""

import os
import pathlib
import shutil

from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.weights.load import FORMATS, open_weights
from igpt_jax.weights.stream import Weights


def convert(
    input: str | os.PathLike,
    output: str | os.PathLike,
    to: str,
    *,
    palette: Palette | str | os.PathLike | None = None,
) -> Weights:
    """Writes the weights at `input`, of any format that `load` knows, as a new directory `output`.

    Args:
      to: "huggingface" (opens in transformers), "openai" (restores in the released graph), or "igpt" (a work dir).
      palette: the colors, or a .npy file of them, where the input has none.
    Returns:
      What was written, opened from `input`.
    Raises:
      InputError: the output exists, the input cannot be read, or the format cannot hold the model.  Then no output
        directory is left.
    """
    output = pathlib.Path(output)
    if to not in FORMATS:
        raise InputError(f"there is no format {to!r}; choose one of {', '.join(FORMATS)}")
    if output.exists():
        raise InputError(f"{output} exists; name a new directory")
    weights = open_weights(input, palette)
    partial = output.absolute().with_name(f".{output.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        FORMATS[to].write(weights, partial)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return weights
