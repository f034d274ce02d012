"""Several processes as one program: how they join, share the work, exchange data, and exit together."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from igpt_jax.errors import InputError

LEAVING_SECONDS = 30  # from the failure of one process until JAX ends the others


@contextlib.contextmanager
def joined(option: str) -> Iterator[None]:
    """Calls `join`, and turns JAX's error into an InputError if the processes lose contact inside the context.

    Args:
      option: as for `join`.

    Raises:
      InputError: as for `join`; or another process has failed or cannot be reached any more.
    """
    join(option)
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if not _is_of_the_runtime(error) or jax.process_count() == 1:
            raise
        first_line = str(error).splitlines()[0]
        raise InputError(
            f"process {jax.process_index()} cannot go on: {first_line}; see what the other processes say, and run the "
            "same command again in all of them"
        ) from error


def _is_of_the_runtime(error: Exception) -> bool:
    """Whether JAX's runtime raised an error: a lost connection comes as a ValueError too, such as "UNKNOWN: Gloo"."""
    if isinstance(error, InputError):  # a ValueError of our own
        return False
    return isinstance(error, jax.errors.JaxRuntimeError) or re.match(r"[A-Z_]+: ", str(error)) is not None


def join(option: str) -> None:
    """Makes this process one of several that run the same program. Call it before anything else that uses JAX.

    Args:
      option: "auto", "off", or "HOST:PORT,COUNT,INDEX". With "auto", the processes find each other on Cloud TPU, Slurm,
        Open MPI and Kubernetes; elsewhere the process stays alone. HOST:PORT is where process 0 listens, COUNT the
        number of processes, and INDEX the number of this one, from 0.

    Raises:
      InputError: the option is none of these, or the processes do not find each other within five minutes.
    """
    if option == "off":
        return
    cluster: dict[str, Any] = {} if option == "auto" else _parse(option)
    try:
        jax.distributed.initialize(
            **cluster, heartbeat_timeout_seconds=LEAVING_SECONDS, shutdown_timeout_seconds=LEAVING_SECONDS
        )
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"--distributed={option}: the processes did not find each other: {error}; start every one, with the same "
            f"address, within five minutes"
        ) from error
    except (ValueError, RuntimeError) as error:  # there is no cluster, or JAX has been initialized before
        if option != "auto":
            raise InputError(f"--distributed={option}: {error}") from error


def _parse(option: str) -> dict[str, Any]:
    address, *numbers = option.split(",")
    if len(numbers) != 2 or ":" not in address or not all(number.isdecimal() for number in numbers):
        raise InputError(
            f"--distributed={option!r} is not auto, off or HOST:PORT,COUNT,INDEX, such as 10.0.0.2:8476,4,0 for the "
            f"first of four processes"
        )
    count, index = map(int, numbers)
    if index >= count:
        raise InputError(f"--distributed={option}: {count} processes have indices 0 to {count - 1}, not {index}")
    return {"coordinator_address": address, "num_processes": count, "process_id": index}


def is_primary_process() -> bool:
    """Whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def batch_share(mesh: Mesh) -> tuple[int, int]:
    """Chooses the part of a batch that this process reads.

    Returns:
      The index of the part, and the number of parts. Processes whose devices form one `model` group read the same part.

    Raises:
      InputError: the processes do not split the batch into equal, disjoint parts.
    """
    # For every process, the rows of the mesh in which it has devices. A row is one index along `slice` and `data`.
    rows: dict[int, set[int]] = {}
    by_row = mesh.devices.reshape(-1, mesh.shape["model"])
    for (row, _), device in np.ndenumerate(by_row):
        rows.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(part)) for part in rows.values()})
    if sum(map(len, parts)) != len(by_row) or len({len(part) for part in parts}) > 1:
        local, model = mesh.devices.size // len(rows), mesh.shape["model"]
        fitting = [n for n in range(1, mesh.devices.size + 1) if mesh.devices.size % n == 0]
        fitting = [n for n in fitting if local % n == 0 or n % local == 0]
        raise InputError(
            f"parallel.model={model} does not fit processes of {local} devices each; "
            f"set parallel.model={min(fitting, key=lambda n: abs(n - model))}"
        )
    return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def broadcast_from_primary(array: np.ndarray) -> np.ndarray:
    """Returns process 0's array, bit for bit, on every process. All must call it, with the same shape and dtype."""
    return multihost_utils.broadcast_one_to_all(array.view(np.uint8)).view(array.dtype)


def allgather(tree: Any) -> Any:
    """Returns every array of a tree whole, as a numpy array, on every process. All processes must call it."""
    return multihost_utils.process_allgather(tree, tiled=True)


def barrier(name: str) -> None:
    """Waits until every process has called it with the same name."""
    multihost_utils.sync_global_devices(name)


def leave(status: int) -> None:
    """Waits for all other processes after success; after a failure, ends this process and soon all others.

    Processes that fail in the same way, as on a bad option, have some seconds to print their own message. Processes
    that are still at work would wait for this one forever, so JAX ends them after `LEAVING_SECONDS`.

    Args:
      status: exit status of this process; 0 is success, after which the function returns.
    """
    if not jax.distributed.is_initialized():
        return
    if status == 0:
        barrier("the end")
        return
    sys.stdout.flush()
    sys.stderr.flush()
    leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    leaving.start()
    # Exit before JAX ends the other processes: it would end this one too, with a status of its own.
    leaving.join(LEAVING_SECONDS - 3)
    os._exit(status)
