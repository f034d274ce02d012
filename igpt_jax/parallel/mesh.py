"""The device mesh, and the table from logical axes to mesh axes, from which every sharding derives."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from igpt_jax.config import ModelConfig, ParallelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.attention import LANES, fits_cudnn
from igpt_jax.types import Batch, HostBatch

AXES = ("slice", "data", "model")
# (logical axis, mesh axis); None: not split.
RULES = (
    ("batch", ("slice", "data")),  # images are independent
    # Each device keeps a part of every weight and of its Adam moments (FSDP).  Every slice has all parts, so that only
    # the sums of gradients cross the network between slices.
    ("width", "data"),
    ("heads", "model"),  # attention heads are independent
    ("mlp", "model"),  # the two matmuls of the MLP need one sum over devices, after the second
    ("sequence", "model"),  # between blocks, norms and residual sums treat each position by itself
    ("vocabulary", None),  # a few hundred colors: too small to split
    ("classes", None),  # likewise
    ("gain", None),  # likewise; kept whole on every device, the gains of the norms need no all-gather
    ("position", None),  # the position table is split along its width
    ("head_dim", None),  # attention sums over it
    ("layers", None),  # the scan runs over it
    ("matrix", ("data", "model")),  # of the stack that Muon orthogonalizes: each device takes some whole matrices
)


def make_mesh(config: ParallelConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Arranges devices as a (slice, data, model) grid; a single device is a 1x1x1 mesh.

    Args:
      config: sizes of the axes.
      devices: None takes all devices of all processes.

    Raises:
      InputError: the product of the sizes is not the number of devices, or the slices are not those of the devices.
    """
    devices = jax.devices() if devices is None else devices
    slices = _slices(config, devices)
    count = len(devices) // slices
    data = config.data if config.data != -1 else count // config.model
    model = config.model if config.model != -1 else count // config.data
    if data * model != count:
        wanted = config.model if config.model != -1 else count / config.data
        nearest = min((n for n in range(1, count + 1) if count % n == 0), key=lambda n: abs(n - wanted))
        raise InputError(
            f"parallel.data={config.data} x parallel.model={config.model} does not match {count} devices"
            f"{' of a slice' if slices > 1 else ''}; "
            f"set parallel.data={count // nearest} and parallel.model={nearest}"
        )
    by_slice = sorted(devices, key=_slice_of)
    grids = [_grid(by_slice[i * count : (i + 1) * count], data, model) for i in range(slices)]
    return Mesh(np.stack(grids), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _slices(config: ParallelConfig, devices: list[jax.Device]) -> int:
    found = len({_slice_of(device) for device in devices})
    slices = found if config.slices == -1 else config.slices
    if len(devices) % slices or found not in (1, slices):
        raise InputError(f"parallel.slices={slices}, but the {len(devices)} devices are of {found}; set it to {found}")
    return slices


def _slice_of(device: jax.Device) -> int:
    return getattr(device, "slice_index", None) or 0


def _grid(devices: list[jax.Device], data: int, model: int) -> np.ndarray:
    """Arranges the devices of one slice so that neighbors in the grid are neighbors in the hardware."""
    # jax.make_mesh cannot arrange chips whose cores are separate devices, such as TPU v4's in a described topology.
    if any(getattr(device, "core_on_chip", 0) for device in devices):
        return np.reshape(devices, (data, model))
    axes = AXES[1:]
    return jax.make_mesh((data, model), axes, axis_types=(AxisType.Auto,) * len(axes), devices=devices).devices


def batch_ways(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts a mesh splits a batch."""
    return mesh.shape["slice"] * mesh.shape["data"]


@contextlib.contextmanager
def logical_axes(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """A context in which the logical axes that the model names mean the axes of `mesh`; trace functions inside it."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(RULES):
        yield


def shardings(tree: Any, mesh: Any) -> Any:
    """Returns the NamedSharding of every leaf of a tree, from the logical axes that Flax recorded with it."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(tree), mesh, RULES)


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The sharding that splits the first axis, the images, over `slice` and `data`."""
    return NamedSharding(mesh, PartitionSpec(("slice", "data")))


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
    """The sharding that keeps the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: HostBatch, mesh: Mesh) -> Batch:
    """Joins the parts of a batch that the processes have read into global arrays."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(batch_sharding(mesh), x), batch)


def put_whole_batch(batch: HostBatch, mesh: Mesh) -> Batch:
    """Makes global arrays from a batch of which every process holds the whole."""
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, batch_sharding(mesh), x.__getitem__), batch)


def check_batch(name: str, batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Checks that every microbatch of a batch splits evenly over the mesh.

    Args:
      name: of the option, for the message.
      batch_size: images per step, over all processes.
      mesh: devices.
      microbatches: parts of a batch that are computed one after another.

    Raises:
      InputError: it does not; the message gives the nearest batch size that does.
    """
    ways = batch_ways(mesh) * microbatches
    if batch_size % ways:
        parts = f" x {microbatches} microbatches" if microbatches > 1 else ""
        raise InputError(
            f"{name}={batch_size} is not divisible by the {batch_ways(mesh)} devices of the data axis{parts}; "
            f"set it to {max(ways, round(batch_size / ways) * ways)}"
        )


def check_model(config: ModelConfig, mesh: Mesh) -> None:
    """Checks that a model's weights split evenly over a mesh, and that its attention backend runs on the devices.

    Raises:
      InputError: `model.width`, `model.heads`, the width of the MLP or `model.attention` does not fit.
    """
    axes = (("width", config.width, "data"), ("heads", config.heads, "model"), ("MLP width", config.mlp_width, "model"))
    for name, size, axis in axes:
        if size % mesh.shape[axis]:
            count = mesh.shape["data"] * mesh.shape["model"]
            grids = [{"data": count // n, "model": n} for n in range(1, count + 1) if count % n == 0]
            grids = [grid for grid in grids if all(size % grid[axis] == 0 for _, size, axis in axes)]
            nearest = min(grids, key=lambda grid: abs(grid["model"] - mesh.shape["model"]), default={})
            remedy = " and ".join(f"parallel.{axis}={n}" for axis, n in nearest.items()) or "fewer devices"
            raise InputError(
                f"the model's {name}, {size}, is not divisible by the {mesh.shape[axis]} devices of the {axis} axis; "
                f"use {remedy}"
            )
    if problem := _attention_problem(config, mesh):
        raise InputError(f"model.attention={config.attention} {problem}; set it to auto")


def with_fitting_attention(config: ModelConfig, mesh: Mesh) -> ModelConfig:
    """Returns a model's config with attention="auto" where its own backend does not run on the devices of a mesh."""
    return dataclasses.replace(config, attention="auto") if _attention_problem(config, mesh) else config


def _attention_problem(config: ModelConfig, mesh: Mesh) -> str | None:
    if config.attention == "cudnn" and (config.dtype != "bfloat16" or not fits_cudnn(config.head_dim)):
        return (
            f"needs model.dtype=bfloat16, not {config.dtype}, and heads whose dimension is a multiple of 8 and at most "
            f"128, not {config.head_dim}"
        )
    platform = mesh.devices.flat[0].platform
    for kernel, its_platform in (("splash", "tpu"), ("cudnn", "gpu")):
        if config.attention == kernel and platform != its_platform:
            return f"runs on a {its_platform}, not on a {platform}"
    if config.attention == "splash" and config.context % LANES:
        return (
            f"needs positions in multiples of {LANES}, not the {config.context} of model.resolution={config.resolution}"
        )
    return None
