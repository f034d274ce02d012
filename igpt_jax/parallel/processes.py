"""Several processes as one program: how they join, share the work, agree, and leave together."""

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from igpt_jax.errors import InputError

LEAVING_SECONDS = 30  # after a process has failed, until those still at work are ended


@contextlib.contextmanager
def joined(option: str) -> Iterator[None]:
    """`join`; then an InputError, in place of JAX's own, where the processes lose each other at their work."""
    join(option)
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or not _is_of_the_runtime(error):
            raise
        first_line = str(error).splitlines()[0]
        raise InputError(
            f"process {jax.process_index()} cannot go on: {first_line}; see what the other processes say, and run the "
            "same command again in all of them"
        ) from error


def _is_of_the_runtime(error: Exception) -> bool:
    """Whether JAX's runtime raised an error: a lost connection comes as a ValueError too, such as "UNKNOWN: Gloo"."""
    return isinstance(error, jax.errors.JaxRuntimeError) or re.match(r"[A-Z_]+: ", str(error)) is not None


def join(option: str) -> None:
    """Makes this process one of several that run the same program; call it before anything else that uses JAX.

    option: "auto" (Cloud TPU, Slurm, Open MPI and Kubernetes say who belongs together; elsewhere the process stays
    alone), "off", or "HOST:PORT,COUNT,INDEX": where process 0 listens, how many there are, which one this is.

    Raises:
      InputError: another option, or the processes do not find each other within five minutes.
    """
    if option == "off":
        return
    known = {} if option == "auto" else _parse(option)
    try:
        jax.distributed.initialize(
            **known, heartbeat_timeout_seconds=LEAVING_SECONDS, shutdown_timeout_seconds=LEAVING_SECONDS
        )
    except jax.errors.JaxRuntimeError as error:
        raise InputError(
            f"--distributed={option}: the processes did not find each other: {error}; start every one, with the same "
            f"address, within five minutes"
        ) from error
    except (ValueError, RuntimeError) as error:  # no cluster around; or JAX runs already, with its processes
        if option != "auto":
            raise InputError(f"--distributed={option}: {error}") from error


def _parse(option):
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
    """Whether this process is the one that writes files and talks."""
    return jax.process_index() == 0


def batch_share(mesh: Mesh) -> tuple[int, int]:
    """Which part of a batch this process reads: (index, how many parts); processes of one `model` group share a part.

    Raises:
      InputError: processes would have to share a part of a part.
    """
    rows = {}  # the rows of the mesh, each a part of the batch for one or more devices, of every process
    for (row, _), device in np.ndenumerate(mesh.devices):
        rows.setdefault(device.process_index, set()).add(row)
    parts = sorted({tuple(sorted(part)) for part in rows.values()})
    if sum(map(len, parts)) != mesh.shape["data"] or len({len(part) for part in parts}) > 1:
        local, model = mesh.devices.size // len(rows), mesh.shape["model"]
        fitting = [n for n in range(1, mesh.devices.size + 1) if mesh.devices.size % n == 0]
        fitting = [n for n in fitting if local % n == 0 or n % local == 0]
        raise InputError(
            f"parallel.model={model} does not fit processes of {local} devices each; "
            f"set parallel.model={min(fitting, key=lambda n: abs(n - model))}"
        )
    return parts.index(tuple(sorted(rows[jax.process_index()]))), len(parts)


def broadcast_from_primary(array: np.ndarray) -> np.ndarray:
    """Gives every process the array that process 0 has, bit for bit; all call it, with one shape and type."""
    return multihost_utils.broadcast_one_to_all(array.view(np.uint8)).view(array.dtype)


def allgather(tree):
    """The whole of every array, as numpy, on every process; all call it."""
    return multihost_utils.process_allgather(tree, tiled=True)


def barrier(name: str) -> None:
    """Returns when every process has called it with this name."""
    multihost_utils.sync_global_devices(name)


def leave(status: int) -> None:
    """Ends well together with the others; or ends a process that failed, with this status, and soon all others too.

    Those that fail alike, as on a bad option, get some seconds to say so; those still at work would wait for this one
    forever, and JAX ends them after `LEAVING_SECONDS`.
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
    leaving.join(LEAVING_SECONDS - 3)  # a process that is still there when JAX ends the others is ended with them
    os._exit(status)
