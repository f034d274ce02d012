"""Floating-point operations of a model, and the peak performance of chips."""

import dataclasses
from collections.abc import Sequence

import jax

from igpt_jax.config import ModelConfig
from igpt_jax.model.attention import splash_block


@dataclasses.dataclass(frozen=True)
class Chip:
    """The vendor's data sheet of one chip."""

    flops: float  # dense bfloat16 FLOP/s
    hbm: float  # GiB of memory
    hbm_bandwidth: float = 0.0  # bytes/s
    link_bandwidth: float = 0.0  # bytes/s, received over all links to other chips together
    network_bandwidth: float = 0.0  # bytes/s, sent through the data-center network to other slices

    @property
    def hbm_bytes(self) -> int:
        """Memory in bytes."""
        return int(self.hbm * 2**30)


NEWTON_SCHULZ_ITERATIONS = 5  # in each orthogonalization of Muon

# By JAX's device_kind. TPUs: docs.cloud.google.com/tpu, the page of each version. These pages count links in both
# directions: 400, 1,200, 800 and 1,200 GB/s for v5e, v5p, v6e and TPU7x. They give the network of v5p, v6e and TPU7x as
# 50, 100 and 100 Gbit/s for a chip, and that of v5e as 6.4 Tbit/s for a pod of 256. The six links of 50 GB/s of v4 are
# from Jouppi et al. 2023 (arXiv:2304.01433). GPUs: NVIDIA's data sheets, without sparsity.
CHIPS = {
    "TPU v4": Chip(275e12, 32, 1200e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16, 819e9, 200e9, network_bandwidth=3.125e9),
    "TPU v5": Chip(459e12, 95, 2765e9, 600e9, network_bandwidth=6.25e9),
    "TPU v6 lite": Chip(918e12, 32, 1638e9, 400e9, network_bandwidth=12.5e9),
    "TPU7x": Chip(2307e12, 192, 7380e9, 600e9, network_bandwidth=12.5e9),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 40, 1555e9),
    "NVIDIA A100-SXM4-80GB": Chip(312e12, 80, 2039e9),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 80, 3350e9),
    "NVIDIA H200": Chip(989e12, 141, 4800e9),
}


def matmul_parameters(config: ModelConfig) -> int:
    """Counts the weights of the matmuls: those of the blocks and of the token head."""
    return config.layers * _layer_weights(config) + config.width * config.vocabulary


def forward_flops(config: ModelConfig, images: int) -> float:
    """Counts the FLOPs of one forward pass: two per weight and position, and attention over the visible positions."""
    return images * config.context * (_layer_flops(config) * config.layers + 2 * config.width * config.vocabulary)


def training_flops(config: ModelConfig, images: int) -> float:
    """Counts the FLOPs of forward and backward pass; the backward pass takes twice the forward's. No recomputation."""
    return 3 * forward_flops(config, images)


def executed_flops(config: ModelConfig, images: int) -> float:
    """Counts the FLOPs that the chips execute in a training step, recomputation and kernels' overhead included.

    Remat "attention" and "full" recompute the matmuls of a layer, except for the last one of the MLP, whose result the
    backward pass does not need; "full" also recomputes attention. Besides, the backward pass of an attention kernel
    recomputes the scores. Splash's does so twice, and computes the gradient of the weights twice, since it computes dq
    apart from dk and dv. On the diagonal, kernels compute whole blocks.
    """
    d, v, weights = config.width, config.vocabulary, _layer_weights(config)
    repeated = 2 * (weights - d * config.mlp_width) if config.remat in ("attention", "full") else 0
    matmuls = 2 + {"plain": 4, "splash": 7}.get(config.attention, 5) + (2 if config.remat == "full" else 0)
    attention = matmuls * 2 * d * _computed_positions(config)
    return images * config.context * (config.layers * (6 * weights + repeated + attention) + 6 * d * v)


def muon_flops(config: ModelConfig) -> float:
    """Counts the FLOPs that Muon's orthogonalizations add to a step; they do not depend on the batch.

    For a matrix of s x r, s <= r, every iteration takes two matmuls of size s·s·r and one of size s·s·s.
    """
    d, f = config.width, config.mlp_width
    shapes = [(d, d)] * 4 + [(min(d, f), max(d, f))] * ((_layer_weights(config) - 4 * d**2) // (d * f))
    return config.layers * NEWTON_SCHULZ_ITERATIONS * sum(4 * s * s * r + 2 * s**3 for s, r in shapes)


def _computed_positions(config: ModelConfig) -> float:
    """How many keys an attention kernel compares a query with, on average."""
    t = config.context
    if not config.causal or config.attention == "plain":
        return t
    block = splash_block(t) if config.attention == "splash" else min(128, t)
    return (t + block) / 2


def _layer_flops(config: ModelConfig) -> float:
    visible = (config.context + 1) / 2 if config.causal else config.context
    return 2 * _layer_weights(config) + 4 * config.width * visible


def _layer_weights(config: ModelConfig) -> int:
    """Counts the weights in the matrices of a block."""
    return 4 * config.width**2 + (3 if config.activation == "swiglu" else 2) * config.width * config.mlp_width


def peak_flops() -> float | None:
    """Returns the bfloat16 FLOP/s of all chips together, or None for a chip that is not in `CHIPS`."""
    chip = chip_of_device(jax.devices())
    return chip.flops * jax.device_count() if chip else None


def chip_of_device(devices: Sequence[jax.Device]) -> Chip | None:
    """Returns the share of a chip that each of these devices has, or None for a chip that is not in `CHIPS`.

    TPU7x counts two devices for a chip, and so do libtpu's topologies of v4.
    """
    chip = CHIPS.get(devices[0].device_kind)
    if not chip:
        return None
    chips = {(getattr(x, "slice_index", 0), *getattr(x, "coords", (x.id,))) for x in devices}
    return Chip(**{name: size * len(chips) / len(devices) for name, size in dataclasses.asdict(chip).items()})
