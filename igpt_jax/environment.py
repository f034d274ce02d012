"""What JAX is told by environment variables, checked before a command begins its work."""

import importlib
import os
import pathlib
import sys
from collections.abc import Callable

from igpt_jax.errors import InputError

# Settings with which the library does not work, the value that they must have, and why.
REQUIRED = {
    "JAX_ENABLE_X64": (False, "random numbers and weights would be of other types"),
    "JAX_NUMPY_DTYPE_PROMOTION": ("standard", "strict promotion refuses mixed types that are meant"),
    "JAX_DISABLE_JIT": (False, "a training step is compiled as a whole"),
}


def quiet_libtpu() -> None:
    """Keeps libtpu from asking about, and complaining of, a TPU that this machine does not have.

    It is installed without a TPU to plan for one.  The type given here only keeps it quiet: a plan names its topology.
    """
    if not any(pathlib.Path("/dev").glob("accel*")) and not any(pathlib.Path("/dev/vfio").glob("[0-9]*")):
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")


def import_command(name: str) -> Callable:
    """Imports the `main` of a command.  Raises InputError where JAX refuses a value in the environment."""
    try:
        return importlib.import_module(f"igpt_jax.commands.{name}").main
    except ValueError as error:  # JAX reads its environment as it is imported
        raise InputError(f"JAX does not start: {error}; correct or unset the variable that it names") from error


def check_jax() -> None:
    """Where a command uses JAX, makes sure that it has devices, and computes what it should.

    Raises InputError with the variable to unset, or with what to install.
    """
    if "jax" not in sys.modules:
        return
    import jax

    for variable, (required, reason) in REQUIRED.items():
        if getattr(jax.config, variable.lower()) != required:
            raise InputError(f"{variable}={os.environ.get(variable, 'on')} does not work: {reason}; unset it")
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts where a platform that is named has no device
        asked = os.environ.get("JAX_PLATFORMS")
        reason = str(error).split(" (set JAX_PLATFORMS")[0].rstrip(".") or "it has no device of that platform"
        remedy = "pip install -e '.[gpu]' or '.[tpu]' on a machine that has one, or set JAX_PLATFORMS=cpu"
        named = f" with JAX_PLATFORMS={asked}" if asked else ""
        raise InputError(f"JAX does not start{named}: {reason}; {remedy}") from error
