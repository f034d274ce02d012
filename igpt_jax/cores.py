"""The CPU's cores, as jax is to see them."""

import os


def two_devices() -> None:
    """Has jax take a CPU's cores for two devices, each of which draws its own images.

    Decoding is many small operations, of which threads that share one gain little.  Training gains nothing.  Call it
    before jax is imported; what the environment says of the number of devices stays.
    """
    if (os.cpu_count() or 1) > 1 and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
