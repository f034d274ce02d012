"""Converts weights from one format to another, tensor by tensor and atomically."""

import os
import pathlib
import shutil
import tempfile

from igpt_jax.data.tokenizer import Codec, Tokenizer
from igpt_jax.errors import InputError
from igpt_jax.storage import as_path, in_bucket, remove_directory, upload_directory
from igpt_jax.weights.load import FORMATS, open_weights
from igpt_jax.weights.stream import Weights


def convert(
    input: str | os.PathLike,
    output: str | os.PathLike,
    to: str,
    *,
    palette: Tokenizer | str | os.PathLike | None = None,
) -> Weights:
    """Converts weights to another format, and writes them to a new directory.

    After an error, there is no output directory.

    Args:
      input: the path of weights in any format that `load` reads.
      output: the directory to write, which must not exist.
      to: "huggingface" (for transformers), "openai" (for the released TensorFlow code), or "igpt" (a workdir).
      palette: a palette or codec, or the path of its file; replaces the one of the input, if that has one.

    Returns:
      The weights that were written, opened from `input`.

    Raises:
      InputError: the output exists, the input cannot be read, or the format cannot represent the model.
    """
    check_output(output, to)  # before anything is read
    weights = open_weights(input, palette)
    write_weights(weights, output, to)
    return weights


def write_weights(weights: Weights, output: str | os.PathLike, to: str) -> None:
    """Writes a model to a new directory, which after an error does not exist.

    Args:
      weights: the model.
      output: as in `convert`.
      to: as in `convert`.

    Raises:
      InputError: the output exists, or the format is unknown or cannot represent the model.
    """
    output = as_path(output)
    check_output(output, to)
    if to != "igpt" and isinstance(weights.palette, Codec):
        raise InputError(
            f"the tokens of this model are codes, and --to={to} has no place for their codec; use --to=igpt"
        )
    if in_bucket(output):
        _write_to_bucket(weights, output, to)
        return
    partial = output.absolute().with_name(f".{output.name}.{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        FORMATS[to].write(weights, partial)
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_to_bucket(weights: Weights, output: pathlib.Path, to: str) -> None:
    try:
        if to == "igpt":
            FORMATS[to].write(weights, output)
            return
        with tempfile.TemporaryDirectory() as partial:
            FORMATS[to].write(weights, pathlib.Path(partial))
            upload_directory(pathlib.Path(partial), output)
    except BaseException:
        remove_directory(output)
        raise


def check_output(output: str | os.PathLike, to: str) -> None:
    """Raises InputError unless the format is known and nothing exists at the output."""
    if to not in FORMATS:
        raise InputError(f"there is no format {to!r}; choose one of {', '.join(FORMATS)}")
    if as_path(output).exists():
        raise InputError(f"{output} exists; name a new directory")
