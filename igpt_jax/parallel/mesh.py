"""The device mesh, and the one table from logical axes to mesh axes, from which every sharding derives."""

import contextlib
from collections.abc import Iterator

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from igpt_jax.config import ModelConfig, ParallelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.attention import LANES, fits_cudnn

RULES = (
    ("batch", "data"),  # images are independent
    ("width", "data"),  # each device keeps a slice of every weight and of its Adam moments (FSDP)
    ("heads", "model"),  # heads never meet inside attention
    ("mlp", "model"),  # the MLP's two products meet once, after the second
    ("sequence", "model"),  # between blocks positions do not meet: norms and sums are split, and what is saved of them
    ("vocabulary", None),  # a few hundred colors: too small to split
    ("classes", None),  # likewise
    ("gain", None),  # likewise: norms' gains are whole on every device, which needs no gather
    ("position", None),  # of the position table, which is split along its width
    ("head_dim", None),  # attention sums over it
    ("layers", None),  # the scan runs over it
    ("matrix", ("data", "model")),  # of the stack that Muon orthogonalizes: each device does some, whole
)


def make_mesh(config: ParallelConfig, devices: list | None = None) -> Mesh:
    """Arranges the devices as a (data, model) grid; one device is a mesh of one.

    Raises InputError where the two sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    data = config.data if config.data != -1 else count // config.model
    model = config.model if config.model != -1 else count // config.data
    if data * model != count:
        wished = config.model if config.model != -1 else count / config.data
        nearest = min((n for n in range(1, count + 1) if count % n == 0), key=lambda n: abs(n - wished))
        raise InputError(
            f"parallel.data={config.data} x parallel.model={config.model} does not match {count} devices; "
            f"set parallel.data={count // nearest} and parallel.model={nearest}"
        )
    axes, types = ("data", "model"), (AxisType.Auto,) * 2
    if any(getattr(device, "core_on_chip", 0) for device in devices):  # jax.make_mesh arranges whole chips only
        return Mesh(np.reshape(devices, (data, model)), axes, axis_types=types)
    return jax.make_mesh((data, model), axes, axis_types=types, devices=devices)


@contextlib.contextmanager
def logical_axes(mesh: Mesh | AbstractMesh) -> Iterator[None]:
    """While a function is traced in it, the logical axes that the model names mean the axes of this mesh."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(RULES):
        yield


def shardings(tree, mesh: Mesh):
    """The NamedSharding of every leaf, from the logical axes that flax recorded with it."""
    return nn.logical_to_mesh_sharding(nn.get_partition_spec(tree), mesh, RULES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Images split along `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: dict, mesh: Mesh) -> dict[str, jax.Array]:
    """Joins each process's part of the batch into global arrays split along `data`."""
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(batch_sharding(mesh), x), batch)


def put_whole_batch(batch: dict, mesh: Mesh) -> dict[str, jax.Array]:
    """The same arrays from batches that every process holds whole."""
    return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, batch_sharding(mesh), x.__getitem__), batch)


def check_batch(name: str, batch_size: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Raises InputError where a batch, or each of its microbatches, does not split evenly over the `data` axis."""
    ways = mesh.shape["data"] * microbatches
    if batch_size % ways:
        parts = f" x {microbatches} microbatches" if microbatches > 1 else ""
        raise InputError(
            f"{name}={batch_size} is not divisible by the {mesh.shape['data']} devices of the data axis{parts}; "
            f"set it to {max(ways, round(batch_size / ways) * ways)}"
        )


def check_model(config: ModelConfig, mesh: Mesh) -> None:
    """Raises InputError where a weight does not split evenly over the mesh, or the kernel is not for its devices."""
    for option, size, axis in (("width", config.width, "data"), ("heads", config.heads, "model")):
        if size % mesh.shape[axis]:
            nearest = max(n for n in range(1, mesh.shape[axis]) if size % n == 0)
            raise InputError(
                f"model.{option}={size} is not divisible by the {mesh.shape[axis]} devices of the {axis} axis; "
                f"set parallel.{axis}={nearest}"
            )
    if config.attention == "cudnn" and (config.dtype != "bfloat16" or not fits_cudnn(config.head_dim)):
        raise InputError(
            f"model.attention=cudnn needs model.dtype=bfloat16, not {config.dtype}, and heads whose dimension is a "
            f"multiple of 8 and at most 128, not {config.head_dim}; set it to auto"
        )
    platform = mesh.devices.flat[0].platform
    for kernel, its_platform in (("splash", "tpu"), ("cudnn", "gpu")):
        if config.attention == kernel and platform != its_platform:
            raise InputError(f"model.attention={kernel} runs on a {its_platform}, not on a {platform}; set it to auto")
    if config.attention == "splash" and config.context % LANES:
        raise InputError(
            f"model.attention=splash needs positions in multiples of {LANES}, not the {config.context} of "
            f"model.resolution={config.resolution}; set it to auto"
        )
