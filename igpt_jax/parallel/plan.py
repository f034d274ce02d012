"""What a compiled program would need of a TPU slice that is not there: memory, roofline, collectives."""

import collections
import dataclasses
import re

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from igpt_jax.config import ModelConfig, OptimizerConfig, ParallelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.flops import (
    CHIPS,
    NEWTON_SCHULZ_ITERATIONS,
    Chip,
    executed_flops,
    forward_flops,
    muon_flops,
    training_flops,
)
from igpt_jax.parallel.mesh import make_mesh

COLLECTIVES = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice as the compiler knows it, with the data sheet of its chip."""

    name: str
    mesh: Mesh
    chip: Chip

    @classmethod
    def named(cls, name: str, parallel: ParallelConfig) -> "Slice":
        """Describes a topology such as "v5e:4x4", arranged as the config says.

        Raises:
          InputError: a topology that libtpu does not know, or a mesh that does not match its devices.
        """
        try:
            devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
        except jax.errors.JaxRuntimeError as error:
            raise InputError(f"--topology={name}: {error}; take one such as v5e:4x4, v5p:2x2x4, v6e:4x4") from error
        chip = CHIPS[devices[0].device_kind]
        return cls(name, make_mesh(parallel, list(devices)), _one_core(chip))


def _one_core(chip):
    """What one device of a topology has of its chip."""
    share = {field.name: getattr(chip, field.name) / chip.cores for field in dataclasses.fields(chip)}
    return Chip(**share | {"cores": 1})


@dataclasses.dataclass(frozen=True)
class Work:
    """What one call of a program has to do: FLOPs over all devices, and bytes that a device moves."""

    model_flops: float
    executed_flops: float
    hbm_bytes: float
    link_bytes: float


def training_work(
    config: ModelConfig, optimizer: OptimizerConfig, images: int, parameters: int, mesh: Mesh, scattered: bool
) -> Work:
    """One training step, as if every operand of every product and norm crossed HBM once.

    HBM: 28 times the activations (b, t, d) in a layer's forward pass, twice that in the backward, and the share that
    `remat` repeats; a layer's whole weights written and read in each of these passes; Adam reads and writes 28 bytes a
    parameter; Muon 20, and 9 times the matrices in an iteration.  Links: a gather of the weights forward and another
    backward, and the sum of their gradients: worth one gather if `scattered`, two as an all-reduce; with a `model` axis
    also two gathers and two scatters of the activations in each pass; Muon's matrices, dealt out and back.
    """
    executed, flops = executed_flops(config, images), training_flops(config, images)
    hbm, links = _moved(config, images, parameters, mesh, passes=3 * executed / flops, gathers=3 if scattered else 4)
    if optimizer.name == "adam":
        return Work(flops, executed, hbm + 28 * parameters / mesh.size, links)
    matrices = _bytes(config) * parameters / mesh.size
    hbm += 20 * parameters / mesh.size + NEWTON_SCHULZ_ITERATIONS * 9 * matrices
    return Work(flops, executed + muon_flops(config), hbm, links + 2 * matrices)


def forward_work(config: ModelConfig, images: int, parameters: int, mesh: Mesh) -> Work:
    """One pass for features: the forward part of a training step."""
    flops = forward_flops(config, images)
    return Work(flops, flops, *_moved(config, images, parameters, mesh, passes=1, gathers=1))


def sampling_work(config: ModelConfig, images: int, parameters: int, mesh: Mesh) -> Work:
    """Drawing whole images: the weights are gathered once; every position reads them, and half of the full cache."""
    flops, weights = forward_flops(config, images), _bytes(config) * parameters
    cache = 2 * _bytes(config) * config.layers * config.context * config.width * images / mesh.size
    return Work(flops, flops, config.context * (weights + cache / 2), weights * (mesh.size - 1) / mesh.size)


def _moved(config, images, parameters, mesh, *, passes, gathers):
    """Bytes that a device moves through HBM, and over its links."""
    data, model = mesh.shape["data"], mesh.shape["model"]
    activations = _bytes(config) * config.layers * images / data * config.context * config.width
    weights = _bytes(config) * parameters / model
    hbm = passes * (28 * activations / model + 2 * weights)
    return hbm, gathers * weights * (data - 1) / data + passes * 4 * activations * (model - 1) / model


def _bytes(config):
    return jnp.dtype(config.dtype).itemsize


def describe(
    compiled, work: Work, where: Slice, *, collectives: dict | None, remat: str, compile_seconds: float
) -> dict:
    """Everything that `python -m igpt_jax plan` prints, by its JSON keys; bytes are a device's, seconds a call's."""
    memory, chip, devices = compiled.memory_analysis(), where.chip, where.mesh.size
    seconds = {
        "compute": work.executed_flops / devices / chip.flops,
        "hbm": work.hbm_bytes / chip.hbm_bandwidth,
        # Half of the links: a slice below a whole pod has an axis without wrap-around.
        "interconnect": work.link_bytes / (chip.link_bandwidth / 2),
    }
    bound = max(seconds, key=seconds.get)
    return {
        "topology": where.name,
        "devices": devices,
        "mesh": dict(where.mesh.shape),
        "bytes_per_device": {
            "arguments": memory.argument_size_in_bytes,
            "temporaries": memory.temp_size_in_bytes,
            "total": total_bytes(compiled),
            "hbm": chip.hbm_bytes,
        },
        "fits": total_bytes(compiled) <= chip.hbm_bytes,
        "remat": remat,
        "model_flops_per_step": work.model_flops,
        "executed_flops_per_step": work.executed_flops,
        "seconds": seconds,
        "bound": bound,
        "mfu_ceiling": work.model_flops / devices / chip.flops / seconds[bound],
        "collectives": collectives,
        "compile_seconds": compile_seconds,
    }


def count_collectives(compiled) -> dict[str, dict[str, int]] | None:
    """Collectives of a compiled program by kind: in one iteration of a loop over layers, and outside of loops.

    On TPU a reduce-scatter is printed as a fusion called all-reduce-scatter.  libtpu 0.0.52 makes one where a slice is
    a ring or 4x8; on 4x4, 8x8 and in three dimensions it prefers an all-reduce of the whole, even to an explicit
    `psum_scatter`.  None where the compiler does not print its program.
    """
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None
    named = r"\(.*op_name=\"([^\"]*)\""
    found = set(re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?{named}", text))
    scatters = re.findall(r" fusion\(.*calls=%all-reduce-scatter.*op_name=\"([^\"]*)\"", text)
    found |= {("reduce-scatter", name) for name in scatters}
    counts = collections.defaultdict(lambda: {"in_loops": 0, "outside": 0})
    for kind, name in found:  # one that runs beside other work is printed once for each part
        counts[kind]["in_loops" if "/while/body" in name else "outside"] += 1
    return dict(sorted(counts.items()))


def total_bytes(compiled) -> int:
    """What a device must hold at once: arguments, temporaries, and the results that take no argument's place."""
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return held + memory.output_size_in_bytes - memory.alias_size_in_bytes
