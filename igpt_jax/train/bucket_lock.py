"""A lock in Cloud Storage, which has none of its own: an object that only one process can create, with a heartbeat.

Every write of the object names the generation that it replaces, so that of several processes only one succeeds.  The
holder writes it again every few seconds.  A lock that is not written for longer belongs to a process that is gone.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from igpt_jax.errors import InputError
from igpt_jax.storage import BUCKETS

BEAT = 15.0  # seconds between heartbeats
PATIENCE = 60.0  # seconds without a heartbeat after which a lock is free


@contextlib.contextmanager
def bucket_lock(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock at a path in a bucket.

    A lock that a killed process of this machine left is taken at once, and one that another machine left after
    `PATIENCE`.  If another process takes this lock, because this one was not heard of for too long, this process ends
    with exit status 2: the other one is already writing.

    Raises:
      InputError: another process holds it.
    """
    held = _Lock(path)
    held.take()
    stop = threading.Event()
    thread = threading.Thread(target=held.beat, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        held.release()


class _Lock:
    def __init__(self, path: pathlib.Path) -> None:
        import google.cloud.storage as storage

        bucket, _, name = str(path).removeprefix(BUCKETS).partition("/")
        self._path, self._owner = path, _this_process() | {"lock": uuid.uuid4().hex}
        self._blob: Any = storage.Client().bucket(bucket).blob(name)
        self._generation = 0

    def take(self) -> None:
        """Creates the object, or replaces one whose holder is gone.

        Raises:
          InputError: its holder is alive.
        """
        if self._write(0):
            return
        generation, owner = self._read()
        if not _is_dead(owner):
            print(f"{self._path} is held by {_name(owner)}; waiting to see whether it is alive", file=sys.stderr)
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                time.sleep(BEAT / 3)
                now, owner = self._read()
                if now not in (0, generation):
                    raise self._in_use(owner)
                generation = now
                if now == 0:
                    break
        if not self._write(generation):
            raise self._in_use(self._read()[1])

    def beat(self, stop: threading.Event) -> None:
        """Writes the object again and again."""
        while not stop.wait(BEAT):
            try:
                kept = self._write(self._generation)
            except Exception as error:  # the network's; the next beat tries again
                print(f"{self._path}: no heartbeat ({error})", file=sys.stderr)
                continue
            if not kept and not stop.is_set():
                print(f"{self._path} was taken by {_name(self._read()[1])}; this run ends", file=sys.stderr, flush=True)
                os._exit(2)

    def release(self) -> None:
        """Removes the object, if it is still this process's."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        with contextlib.suppress(NotFound, PreconditionFailed):
            self._blob.delete(if_generation_match=self._generation)

    def _write(self, generation: int) -> bool:
        """Writes the object in place of a generation, or creates it for 0; returns whether that succeeded."""
        from google.api_core.exceptions import NotFound, PreconditionFailed

        try:
            self._blob.upload_from_string(json.dumps(self._owner), if_generation_match=generation)
            self._generation = self._blob.generation
        except (NotFound, PreconditionFailed):
            # Perhaps an earlier try succeeded, and its answer was lost on the way.
            now, owner = self._read()
            if owner != self._owner:
                return False
            self._generation = now
        return True

    def _read(self) -> tuple[int, dict[str, Any]]:
        """The generation of the object and what it says; 0 if there is none."""
        from google.api_core.exceptions import NotFound

        try:
            found = self._blob.bucket.get_blob(self._blob.name)
            return (found.generation, json.loads(found.download_as_bytes())) if found else (0, {})
        except NotFound:  # replaced, or removed, since then
            return self._read()

    def _in_use(self, owner: dict[str, Any]) -> InputError:
        return InputError(f"{self._path.parent} is in use by {_name(owner)}; wait for it, or use another --workdir")


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": _boot(), "process": pid, "started": _started(pid)}


def _is_dead(owner: dict[str, Any]) -> bool:
    """Whether the owner was a process of this machine which has ended."""
    if owner.get("host") != socket.gethostname() or not _boot():
        return False
    return owner.get("boot") != _boot() or owner.get("started") != _started(owner.get("process", 0))


def _boot() -> str:
    """Identifies the machine since its last start; empty where that is not known."""
    path = pathlib.Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else ""


def _started(pid: int) -> str:
    """When a process of this machine started, in clock ticks; empty if there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _name(owner: dict[str, Any]) -> str:
    return f"process {owner['process']} on {owner['host']}" if "process" in owner else "another run"
