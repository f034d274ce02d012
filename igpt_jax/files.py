"""Files that are either the old ones or the whole new ones, whenever the process ends."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from igpt_jax.errors import InputError, describe_os_error


def make_directory(path: pathlib.Path) -> None:
    """Makes a directory with its parents, where there is none yet.  Raises InputError where that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(describe_os_error(error, "make the directory")) from error


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a path to write to; leaving without an exception puts that file, safely on disk, in the place of `path`.

    Only one process at a time may replace a file: what a killed one left is overwritten.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
