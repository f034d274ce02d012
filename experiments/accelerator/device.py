"""Prints the accelerator and the versions of driver and packages: `python -m experiments.accelerator.device`."""

import json
import os
import platform
import shutil
import subprocess
from importlib import metadata
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "jax-cuda13-plugin", "libtpu", "nvidia-cudnn-cu13", "flax", "optax", "orbax-checkpoint")
PEERS = ("torch", "transformers")


def description() -> dict[str, Any]:
    """The name and number of the devices, the driver, the host, and the versions of the packages."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "driver": _driver(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES + PEERS},
    }


def _driver() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(query, stdout=subprocess.PIPE, text=True).stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    print(json.dumps(description()))
