"""Remembers what `model.remat=auto` has chosen, so that a run that goes on compiles its step only once."""

import contextlib
import json
import pathlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import REMAT, RunConfig
from igpt_jax.files import atomic_write
from igpt_jax.parallel.processes import broadcast_from_primary, is_primary_process

FILE = "remat.json"


def remembered_remat(workdir: pathlib.Path, config: RunConfig, mesh: Mesh) -> str:
    """Returns the policy that fitted before, in the same circumstances; or else the config's own.

    All processes get what the primary one has read.
    """
    if config.model.remat != "auto":
        return config.model.remat
    chosen = -1
    if is_primary_process() and (workdir / FILE).exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged: it is chosen anew
            note = json.loads((workdir / FILE).read_text())
            if note["circumstances"] == _circumstances(config, mesh):
                chosen = REMAT.index(note["remat"])
    (chosen,) = broadcast_from_primary(np.array([chosen]))
    return "auto" if chosen < 0 else REMAT[chosen]


def remember_remat(workdir: pathlib.Path, config: RunConfig, mesh: Mesh, remat: str) -> None:
    """Writes down the policy that was compiled, if the config left the choice."""
    if config.model.remat == "auto" and is_primary_process():
        with atomic_write(workdir / FILE) as partial:
            partial.write_text(json.dumps({"remat": remat, "circumstances": _circumstances(config, mesh)}) + "\n")


def _circumstances(config: RunConfig, mesh: Mesh) -> dict[str, Any]:
    """What the memory of a step depends on, apart from the options that a workdir fixes."""
    return {
        "device": mesh.devices.flat[0].device_kind,
        "mesh": dict(mesh.shape),
        "microbatches": config.parallel.microbatches,
        "dtype": config.model.dtype,
        "attention": config.model.attention,
        "jax": jax.__version__,
    }
