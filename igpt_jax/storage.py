"""Paths in Cloud Storage: gs://BUCKET/PATH can stand wherever a path does.

A local path is a `pathlib.Path`.  A path in a bucket is an `epath.Path`, which has the same methods.  What an object
store does not have is made here: files that are read by their name are copied to this machine first, and files that
grow are written on this machine and copied to the bucket.  gcsfs does the transfers, and retries those that fail.
"""

import concurrent.futures
import contextlib
import functools
import getpass
import hashlib
import importlib.util
import logging
import os
import pathlib
import re
import shutil
import tempfile
import typing
from collections.abc import Iterator
from typing import Any

from igpt_jax.errors import InputError
from igpt_jax.progress import track

BUCKETS = "gs://"
SCRATCH = "IGPT_JAX_SCRATCH"  # the environment variable that says where copies of files in buckets are kept
_TRANSFERS = 16  # at a time

# epath would take TensorFlow, where it is installed; it decides at the first use of any path.
os.environ.setdefault("EPATH_USE_TF", "false")


def as_path(place: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a local file or directory, or of one in a bucket.

    "~" is expanded. The first use of a bucket checks that it can be reached.

    Raises:
      InputError: it is an address of another kind, gcsfs is not installed, or the bucket cannot be listed.
    """
    text = os.fspath(place)
    if text.startswith(BUCKETS):
        return _bucket_path(text)
    if is_address(text):
        raise InputError(f"{text} is no path; of all addresses, only those like gs://BUCKET/PATH are supported")
    return pathlib.Path(place).expanduser()


def is_address(text: str) -> bool:
    """Whether a text is an address such as gs://bucket/run, or meant as one, and no path of this machine."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text))


def in_bucket(path: pathlib.Path) -> bool:
    """Whether a path of `as_path` is in a bucket."""
    return not isinstance(path, pathlib.Path)


def absolute(path: pathlib.Path) -> pathlib.Path:
    """Returns a path that does not depend on the current directory; one in a bucket never does."""
    return path if in_bucket(path) else path.absolute()


def _bucket_path(text: str) -> pathlib.Path:
    bucket = text.removeprefix(BUCKETS).partition("/")[0]
    if not bucket:
        raise InputError(f"{text} names no bucket; write gs://BUCKET/PATH")
    if not importlib.util.find_spec("gcsfs"):
        raise InputError(f"{text} needs gcsfs: pip install 'igpt_jax[gcs]'")
    _check(bucket)
    from etils import epath

    return typing.cast(pathlib.Path, epath.Path(text))


@functools.cache
def _check(bucket: str) -> None:
    try:
        files().call("GET", "b/{}/o", bucket, maxResults=1, json_out=True)
    except Exception as error:
        reason = describe_bucket_error(error) or str(error)
        if isinstance(error, FileNotFoundError):
            reason = "there is no such bucket; create it with: gcloud storage buckets create"
        raise InputError(f"{BUCKETS}{bucket} cannot be used: {reason}") from error


@functools.cache
def files() -> Any:
    """The file system of all buckets, as fsspec knows it."""
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it logs, it also raises
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False  # other processes write there too
    return fsspec.filesystem("gcs", finalize_on_close=True)  # as epath opens it


def describe_bucket_error(error: BaseException) -> str | None:
    """Describes an error of Cloud Storage or of the way there in one line; None if it is another kind of error."""
    origin = type(error).__module__.partition(".")[0]
    text = " ".join(str(error).split())[:300]
    if origin == "google":
        return f"{text}; log in with: gcloud auth application-default login"
    if isinstance(error, OSError) and re.search("forbidden|unauthorized|permission", text, re.IGNORECASE):
        return f"{text}; grant this account the role Storage Object Admin on the bucket"
    if origin in ("gcsfs", "aiohttp", "requests"):
        return f"Cloud Storage does not answer ({type(error).__name__}: {text}); run the same command again"
    return None


def remove_directory(path: pathlib.Path) -> None:
    """Removes a directory and everything below it, if it exists."""
    if in_bucket(path):
        typing.cast(Any, path).rmtree(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def upload(local: pathlib.Path, path: pathlib.Path) -> None:
    """Copies a file of this machine into a bucket, where it appears as a whole."""
    files().put_file(str(local), str(path))


def upload_directory(local: pathlib.Path, path: pathlib.Path) -> None:
    """Copies every file below a directory of this machine into a bucket."""
    found = [file for file in sorted(local.rglob("*")) if file.is_file()]
    with concurrent.futures.ThreadPoolExecutor(_TRANSFERS) as pool:
        copied = pool.map(lambda file: upload(file, path / file.relative_to(local).as_posix()), found)
        list(track(copied, "to the bucket", len(found), "file"))


def scratch() -> pathlib.Path:
    """The directory of this machine for copies of files in buckets; $IGPT_JAX_SCRATCH, or one for each user."""
    named = os.environ.get(SCRATCH)
    return pathlib.Path(named) if named else pathlib.Path(tempfile.gettempdir()) / f"igpt_jax-{getpass.getuser()}"


def local_copy(path: pathlib.Path, *beside: str) -> pathlib.Path:
    """Returns a path of this machine with the same contents; a local path is returned as it is.

    Copies are kept in `scratch()`, and used again as long as the files in the bucket are the same.

    Args:
      path: a file, a directory, or the common beginning of some files' paths.
      *beside: names of files in the same directory which are copied too, if they exist.

    Raises:
      InputError: there is nothing at the path.
    """
    if not in_bucket(path):
        return path
    parent = str(path.parent)
    found = {**files().find(str(path), detail=True), **files().find(parent, prefix=path.name, detail=True, maxdepth=1)}
    for neighbor in [path.parent / name for name in beside]:
        if neighbor.exists():
            found[str(neighbor).removeprefix(BUCKETS)] = files().info(str(neighbor))
    if not found:
        raise InputError(f"there is nothing at {path}; check the path")
    versions = sorted((name, str(info.get("generation") or info.get("etag"))) for name, info in found.items())
    target = scratch() / "copies" / hashlib.sha256(repr((parent, versions)).encode()).hexdigest()[:16]
    if not target.exists():
        _download(parent.removeprefix(BUCKETS), [name for name, _ in versions], target)
    return target / path.name


def _download(root: str, names: list[str], target: pathlib.Path) -> None:
    """Copies objects to a new directory, which appears once it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as partial:

        def fetch(name: str) -> None:
            local = pathlib.Path(partial) / "copy" / pathlib.PurePosixPath(name).relative_to(root)
            local.parent.mkdir(parents=True, exist_ok=True)
            files().get_file(name, str(local))

        with concurrent.futures.ThreadPoolExecutor(_TRANSFERS) as pool:
            list(track(pool.map(fetch, names), f"from {BUCKETS}{root}", len(names), "file"))
        with contextlib.suppress(OSError):  # another process has made the same copy in the meantime
            (pathlib.Path(partial) / "copy").rename(target)


class Mirror:
    """A directory of this machine whose files appear in a bucket at every `push`.

    For a local directory it is that directory, and neither `push` nor `close` does anything.

    Attributes:
      path: where to write.
    """

    def __init__(self, directory: pathlib.Path, *names: str) -> None:
        """Starts with those of the named files that are in the bucket; without any, the mirror is empty."""
        self._directory, self.path = directory, directory
        self._pushed: dict[pathlib.Path, tuple[int, int]] = {}
        if not in_bucket(directory):
            return
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="igpt_jax-"))
        for name in names:
            if (directory / name).exists():
                files().get_file(str(directory / name), str(self.path / name))

    def push(self) -> None:
        """Copies every file that has changed since the last push."""
        if not in_bucket(self._directory):
            return
        for file in sorted(self.path.rglob("*")):
            if file.is_file():
                version = file.stat().st_size, file.stat().st_mtime_ns
                if self._pushed.get(file) != version:
                    upload(file, self._directory / file.relative_to(self.path).as_posix())
                    self._pushed[file] = version

    def close(self) -> None:
        """Removes the directory of this machine."""
        if in_bucket(self._directory):
            shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def mirrored(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields where to write the files of a directory; one in a bucket receives them when the block ends."""
    with contextlib.closing(Mirror(directory)) as mirror:
        yield mirror.path
        mirror.push()
