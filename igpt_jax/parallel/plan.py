"""What a compiled program needs of a TPU slice that this machine does not have: memory, roofline, collectives."""

import collections
import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from igpt_jax.config import ModelConfig, OptimizerConfig, ParallelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.flops import (
    NEWTON_SCHULZ_ITERATIONS,
    Chip,
    chip_of_device,
    executed_flops,
    forward_flops,
    muon_flops,
    training_flops,
)
from igpt_jax.parallel.mesh import batch_ways, make_mesh

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Slice:
    """One TPU slice, or several equal ones, as the compiler describes them."""

    name: str  # of its topology, such as "v5e:4x4"
    mesh: Mesh
    kind: str  # of its chips, such as "TPU v5 lite"
    chip: Chip | None  # one device's share of a chip; None if its data sheet is not in `CHIPS`

    @classmethod
    def named(cls, name: str, parallel: ParallelConfig, slices: int = 1) -> "Slice":
        """Describes the slice of a topology such as "v5e:4x4", with the mesh that the config asks for.

        Args:
          name: of the topology.
          parallel: of the config.
          slices: how many of them are connected by a data-center network.

        Raises:
          InputError: libtpu does not know the topology, or the mesh does not match its devices.
        """
        several = {"num_slices": slices} if slices > 1 else {}
        try:
            devices: list[Any] = topologies.get_topology_desc(platform="tpu", topology_name=name, **several).devices
        except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"--topology={name}: {reason}; choose one such as v5e:4x4, v5p:2x2x4, v6e:4x4") from error
        kind = devices[0].device_kind
        return cls(name, make_mesh(parallel, list(devices)), kind, chip_of_device(devices))


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one call of a program."""

    model_flops: float  # over all devices, without recomputation
    executed_flops: float  # over all devices, with recomputation
    hbm_bytes: float  # read and written by one device
    link_bytes: float  # received by one device from others of its slice
    network_bytes: float = 0.0  # sent by one device to other slices


def training_work(
    config: ModelConfig, optimizer: OptimizerConfig, images: int, parameters: int, mesh: Mesh, scattered: bool
) -> Work:
    """Estimates the work of one training step, as if every operand of every matmul and norm crossed HBM once.

    HBM traffic of a layer: 28 times its activations (b, t, d) in the forward pass, twice that in the backward pass, and
    a share for what `remat` recomputes. In each of these passes, the gathered weights are written once and read once.
    HBM traffic of the optimizer: Adam reads and writes 28 bytes per parameter; Muon 20, and 9 times the matrices in
    each Newton-Schulz iteration.

    Link traffic: an all-gather of the weights in the forward pass, another in the backward pass, and the sum of the
    gradients, which costs as much as one gather (reduce-scatter) or two (all-reduce). With a `model` axis, each pass
    also gathers the activations twice and scatters them twice. Muon's matrices travel to one device and back.

    Network traffic: each device sums its part of the gradients with those of the other slices, in the dtype of the
    activations, as the compiler does.

    Args:
      config: of the model.
      optimizer: Adam or Muon.
      images: per step.
      parameters: of the model.
      mesh: devices.
      scattered: whether the compiler sums the gradients of the weights by reduce-scatter, and not by all-reduce.
    """
    executed, flops = executed_flops(config, images), training_flops(config, images)
    hbm, links = _moved(config, images, parameters, mesh, passes=3 * executed / flops, gathers=3 if scattered else 4)
    slices, part = mesh.shape["slice"], parameters * mesh.shape["slice"] / mesh.size  # of the parameters of a slice
    network = 2 * _bytes(config) * part * (slices - 1) / slices
    if optimizer.name == "adam":
        return Work(flops, executed, hbm + 28 * part, links, network)
    matrices = _bytes(config) * part
    hbm += 20 * part + NEWTON_SCHULZ_ITERATIONS * 9 * matrices
    return Work(flops, executed + slices * muon_flops(config), hbm, links + 2 * matrices, network)


def forward_work(config: ModelConfig, images: int, parameters: int, mesh: Mesh) -> Work:
    """Estimates the work of one forward pass, which computes features: the forward part of a training step."""
    flops = forward_flops(config, images)
    return Work(flops, flops, *_moved(config, images, parameters, mesh, passes=1, gathers=1))


def sampling_work(config: ModelConfig, images: int, parameters: int, mesh: Mesh) -> Work:
    """Estimates the work of sampling whole images, position by position.

    The weights are gathered once. Every position reads all of them and, on average, half of the full cache.
    """
    flops, weights = forward_flops(config, images), _bytes(config) * parameters
    cache = 2 * _bytes(config) * config.layers * config.context * config.width * images / mesh.size
    return Work(flops, flops, config.context * (weights + cache / 2), weights * (mesh.size - 1) / mesh.size)


def _moved(
    config: ModelConfig, images: int, parameters: int, mesh: Mesh, *, passes: float, gathers: int
) -> tuple[float, float]:
    """Estimates the bytes that a device moves through HBM, and over its links."""
    data, model = mesh.shape["data"], mesh.shape["model"]
    activations = _bytes(config) * config.layers * images / batch_ways(mesh) * config.context * config.width
    weights = _bytes(config) * parameters / model
    hbm = passes * (28 * activations / model + 2 * weights)
    return hbm, gathers * weights * (data - 1) / data + passes * 4 * activations * (model - 1) / model


def _bytes(config: ModelConfig) -> int:
    return jnp.dtype(config.dtype).itemsize


def describe(
    compiled: jax.stages.Compiled,
    work: Work,
    where: Slice,
    *,
    collectives: dict[str, dict[str, int]] | None,
    remat: str,
    compile_seconds: float,
) -> dict[str, Any]:
    """Returns everything that `python -m igpt_jax plan` prints, by its JSON keys.

    Args:
      compiled: the program, compiled for the slice.
      work: of one call of the program.
      where: the slice.
      collectives: from `count_collectives`.
      remat: the policy that the program was compiled with, see `config.REMAT`.
      compile_seconds: how long compilation took.

    Returns:
      Values that JSON can hold. Bytes are per device, and seconds are per call. What depends on a chip's data sheet is
      None for chips that are not in `CHIPS`.
    """
    memory: Any = compiled.memory_analysis()
    devices, chip = where.mesh.size, where.chip
    seconds = _seconds(work, chip, devices) if chip else None
    bound = max(seconds, key=seconds.__getitem__) if seconds else None
    ceiling = work.model_flops / devices / chip.flops / seconds[bound] if chip and seconds and bound else None
    return {
        "topology": where.name,
        "chip": where.kind,
        "devices": devices,
        "mesh": dict(where.mesh.shape),
        "bytes_per_device": {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "total": total_bytes(compiled),
            "hbm": chip.hbm_bytes if chip else None,
        },
        "fits": total_bytes(compiled) <= chip.hbm_bytes if chip else None,
        "remat": remat,
        "model_flops_per_step": work.model_flops,
        "executed_flops_per_step": work.executed_flops,
        "seconds": seconds,
        "bound": bound,
        "mfu_ceiling": ceiling,
        "network_bytes_per_device": work.network_bytes,
        "collectives": collectives,
        "compile_seconds": compile_seconds,
    }


def _seconds(work: Work, chip: Chip, devices: int) -> dict[str, float]:
    """The least time that each resource needs."""
    seconds = {
        "compute": work.executed_flops / devices / chip.flops,
        "hbm": work.hbm_bytes / chip.hbm_bandwidth,
        # Half of the links, since a slice that is smaller than a pod has an axis without wrap-around links.
        "interconnect": work.link_bytes / (chip.link_bandwidth / 2),
    }
    if work.network_bytes and chip.network_bandwidth:
        seconds["network"] = work.network_bytes / chip.network_bandwidth
    return seconds


def count_collectives(compiled: jax.stages.Compiled) -> dict[str, dict[str, int]] | None:
    """Counts the collectives of a compiled program.

    The compiler for TPUs prints a reduce-scatter as a fusion called all-reduce-scatter. libtpu 0.0.52 makes one if a
    slice is a ring or 4x8; on 4x4, on 8x8 and in three dimensions it prefers an all-reduce, even to an explicit
    `psum_scatter`.

    Returns:
      By kind, one of `COLLECTIVES`, the number "in_loops", in one iteration of the loops over layers, and the number
      "outside" of loops. None if the compiler does not print its program, or does not print where its collectives come
      from, as for several slices.
    """
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        text = None
    if text is None:
        return None
    named = r"\(.*op_name=\"([^\"]*)\""
    collectives = set(re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?{named}", text))
    scatters = re.findall(r" fusion\(.*calls=%all-reduce-scatter.*op_name=\"([^\"]*)\"", text)
    collectives |= {("reduce-scatter", name) for name in scatters}
    if not collectives and re.search(rf" ({'|'.join(COLLECTIVES)})\(", text):
        return None
    counts: dict[str, dict[str, int]] = collections.defaultdict(lambda: {"in_loops": 0, "outside": 0})
    for kind, name in collectives:  # a set, since a collective that overlaps with other work is printed once per part
        counts[kind]["in_loops" if "/while/body" in name else "outside"] += 1
    return dict(sorted(counts.items()))


def total_bytes(compiled: jax.stages.Compiled) -> int:
    """Counts the bytes that a device must hold at once: arguments, temporaries, and results not in donated buffers."""
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return held + memory.output_size_in_bytes - memory.alias_size_in_bytes
