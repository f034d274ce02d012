"""The CPU's cores: how many this process may use, and how many devices JAX divides them into."""

import os

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def two_devices() -> None:
    """Makes JAX divide a CPU's cores into two devices, which sample or compare different images in parallel.

    Both consist of many small operations, which several threads speed up little.  Training has large operations
    and gains nothing.  Call it before JAX is imported.  A number of devices in the environment takes precedence.
    """
    if CORES > 1 and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
