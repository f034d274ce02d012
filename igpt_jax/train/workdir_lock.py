"""What makes a directory the workdir of one run: a lock while a process writes there, and its config, with a hash."""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

from igpt_jax.config import RunConfig
from igpt_jax.config_format import FORMAT_VERSION, upgrade_config
from igpt_jax.data.tokenizer import Tokenizer, save_tokenizer
from igpt_jax.errors import InputError
from igpt_jax.files import atomic_write
from igpt_jax.storage import in_bucket
from igpt_jax.train.bucket_lock import bucket_lock

CONFIG, LOCK = "config.json", "lock"


@contextlib.contextmanager
def lock_workdir(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps other runs out of the workdir.  The kernel drops the lock with its owner, however that ends.

    It reaches all processes of a machine, and all machines on NFS and Lustre (mounted with flock); on Cloud Storage
    through gcsfuse it reaches one machine only.  A workdir in a bucket has a `bucket_lock`.

    Raises:
      InputError: another process has it.
    """
    if in_bucket(workdir):
        with bucket_lock(workdir / LOCK):
            yield
        return
    with (workdir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise InputError(
                f"{workdir} is in use by {file.read().strip() or 'another run'}; wait for it, or use another --workdir"
            ) from None
        except OSError as error:
            print(f"{workdir} cannot be locked ({error}); start no second run on it", file=sys.stderr)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def write_config(workdir: pathlib.Path, config: RunConfig, palette: Tokenizer) -> None:
    """Writes config.json, and palette.npy or codec.safetensors."""
    save_tokenizer(palette, workdir)
    note = dataclasses.asdict(config) | {"palette_hash": palette.hash, "format_version": FORMAT_VERSION}
    with atomic_write(workdir / CONFIG) as partial:
        partial.write_text(json.dumps(note | {"hash": _hash(note)}, indent=2) + "\n")


def read_config(workdir: pathlib.Path) -> tuple[RunConfig, str]:
    """Reads the config that a workdir was made with, and the hash of its palette.

    Raises:
      InputError: there is none, or it is not what was written.
    """
    path = workdir / CONFIG
    if not path.exists():
        raise InputError(f"{workdir} is not a workdir (no {CONFIG}); train one with: python -m igpt_jax train")
    try:
        note = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        note = None
    if isinstance(note, dict) and "network" in note:
        raise InputError(f"{workdir} is the workdir of a codec and not of a run; use another --workdir")
    if not isinstance(note, dict) or note.pop("hash", None) != _hash(note):
        raise InputError(f"{path} is damaged or edited; delete it, and call train with the run's --config to write it")
    palette_hash, version = note.pop("palette_hash"), note.pop("format_version", 2)
    if version > FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}; a newer igpt_jax wrote it: use that one")
    return RunConfig.from_dict(upgrade_config(note, version)), palette_hash


def _hash(note: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()[:16]
