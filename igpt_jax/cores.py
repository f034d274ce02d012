"""The CPU's cores: how many this process may use, and as how many devices jax sees them."""

import os

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def two_devices() -> None:
    """Has jax take a CPU's cores for two devices, each of which draws its own images.

    Decoding is many small operations, which threads that share one hardly speed up; a training step has large ones, and
    gains nothing.  Call it before jax is imported; what the environment says of the number of devices stays.
    """
    if CORES > 1 and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
