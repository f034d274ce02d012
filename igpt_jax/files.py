"""Writes files atomically: even if the process is killed, a file is the old one or the complete new one."""

import contextlib
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator

from igpt_jax.errors import InputError, describe_os_error
from igpt_jax.storage import in_bucket, upload


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
def atomic_write(path: pathlib.Path, *, shared: bool = False) -> Iterator[pathlib.Path]:
    """Writes a file atomically: what is written to the temporary path replaces `path` when the block ends.

    After an exception, `path` is unchanged.

    Args:
      path: the file to replace or to create, on this machine or in a bucket.
      shared: whether several processes may write the file at a time.  If not, the temporary file has a fixed name, so
        that killed processes leave at most one.

    Yields:
      A temporary path of this machine to write to, with the same suffix.
    """
    if in_bucket(path):
        with tempfile.TemporaryDirectory() as directory:
            partial = pathlib.Path(directory) / path.name
            yield partial
            upload(partial, path)
        return
    partial = path.with_name(f"{path.stem}.partial{f'-{uuid.uuid4().hex[:12]}' if shared else ''}{path.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
