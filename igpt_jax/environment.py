"""Checks the environment variables that configure JAX, before a command starts its work."""

import importlib
import os
import pathlib
import sys
from collections.abc import Callable

from igpt_jax.errors import InputError

# Settings that this package depends on: the value that they must have, and why.
REQUIRED = {
    "JAX_ENABLE_X64": (False, "random numbers and weights would have other dtypes"),
    "JAX_NUMPY_DTYPE_PROMOTION": ("standard", "strict promotion refuses mixed dtypes that are intended"),
    "JAX_DISABLE_JIT": (False, "a training step must be compiled as a whole"),
}


def quiet_libtpu() -> None:
    """Keeps libtpu from searching for a TPU, and printing warnings, on a machine that has none.

    `plan` needs libtpu even without a TPU.  The accelerator type set here only keeps libtpu quiet, because a plan names
    its own topology.
    """
    if not any(pathlib.Path("/dev").glob("accel*")) and not any(pathlib.Path("/dev/vfio").glob("[0-9]*")):
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")


def import_command(name: str) -> Callable[..., None]:
    """Imports the `main` function of a command.

    Raises:
      InputError: JAX refuses the value of an environment variable.
    """
    try:
        return importlib.import_module(f"igpt_jax.commands.{name}").main
    except ValueError as error:  # JAX reads environment variables when it is imported
        raise InputError(f"JAX does not start: {error}; correct or unset the variable that it names") from error


def check_jax() -> None:
    """Checks that JAX has devices and no settings that this package does not support.

    Commands that have not imported JAX do not need it, and are not checked.

    Raises:
      InputError: JAX cannot be used; the message says which variable to unset, or what to install.
    """
    if "jax" not in sys.modules:
        return
    import jax

    for variable, (required, reason) in REQUIRED.items():
        if getattr(jax.config, variable.lower()) != required:
            raise InputError(f"{variable}={os.environ.get(variable, 'on')} does not work: {reason}; unset it")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts if a requested platform has no device
        platforms = os.environ.get("JAX_PLATFORMS")
        reason = str(error).split(" (set JAX_PLATFORMS")[0].rstrip(".") or "it has no device of that platform"
        remedy = "pip install -e '.[gpu]' or '.[tpu]' on a machine that has one, or set JAX_PLATFORMS=cpu"
        requested = f" with JAX_PLATFORMS={platforms}" if platforms else ""
        raise InputError(f"JAX does not start{requested}: {reason}; {remedy}") from error
