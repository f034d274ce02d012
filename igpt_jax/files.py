"""Writes files atomically: even if the process is killed, a file is the old one or the complete new one."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from igpt_jax.errors import InputError, describe_os_error


def make_directory(path: pathlib.Path) -> None:
    """Makes a directory and its parents, unless it exists.

    Raises:
      InputError: the operating system refuses; the message says why.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(describe_os_error(error, "make the directory")) from error


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Writes a file atomically: what is written to the temporary path replaces `path` when the block ends.

    After an exception, `path` is unchanged.  Only one process at a time may replace a file, because the name of the
    temporary file is fixed, so that a killed process leaves at most one.

    Args:
      path: the file to replace or to create.

    Yields:
      A temporary path in the same directory to write to.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
