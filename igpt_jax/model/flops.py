"""Counts the arithmetic of a model, and knows what a chip could do at most."""

import dataclasses

import jax

from igpt_jax.config import ModelConfig
from igpt_jax.model.attention import splash_block


@dataclasses.dataclass(frozen=True)
class Chip:
    """What the vendor's data sheet promises of one chip."""

    flops: float  # dense bfloat16 FLOP/s
    hbm: float  # GiB of memory
    hbm_bandwidth: float = 0.0  # bytes/s
    link_bandwidth: float = 0.0  # bytes/s that all links to other chips together take in
    cores: int = 1  # that libtpu's topologies count as devices

    @property
    def hbm_bytes(self) -> int:
        """Memory in bytes."""
        return int(self.hbm * 2**30)


NEWTON_SCHULZ_ITERATIONS = 5  # by which Muon orthogonalizes

# By jax's device_kind.  TPUs: docs.cloud.google.com/tpu, the page of each version, which counts links both ways: 400,
# 1,200 and 800 GB/s of v5e, v5p and v6e.  v4's six links of 50 GB/s are from Jouppi et al. 2023 (arXiv:2304.01433).
# GPUs: NVIDIA's data sheets, without sparsity.
CHIPS = {
    "TPU v4": Chip(275e12, 32, 1200e9, 300e9, cores=2),
    "TPU v5 lite": Chip(197e12, 16, 819e9, 200e9),
    "TPU v5": Chip(459e12, 95, 2765e9, 600e9),
    "TPU v6 lite": Chip(918e12, 32, 1638e9, 400e9),
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 40, 1555e9),
    "NVIDIA A100-SXM4-80GB": Chip(312e12, 80, 2039e9),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 80, 3350e9),
    "NVIDIA H200": Chip(989e12, 141, 4800e9),
}


def forward_flops(config: ModelConfig, images: int) -> float:
    """Floating-point operations of one forward pass over `images` images.

    Two a weight and position, and attention over the positions that are visible.
    """
    return images * config.context * (_layer_flops(config) * config.layers + 2 * config.width * config.vocabulary)


def training_flops(config: ModelConfig, images: int) -> float:
    """The same for forward and backward, which is twice the forward; recomputation not counted."""
    return 3 * forward_flops(config, images)


def executed_flops(config: ModelConfig, images: int) -> float:
    """What the chip does in a training step: the model's, what `remat` repeats, and what attention kernels do beyond.

    "attention" and "full" repeat a layer's products but the MLP's last, whose result the backward pass does not need,
    and "full" attention too.  A kernel's backward pass repeats the scores, splash's twice and the
    weights' gradient once more, since it makes dq apart from dk and dv; and on the diagonal it computes whole blocks.
    """
    d, v, weights = config.width, config.vocabulary, _layer_weights(config)
    repeated = 2 * (weights - d * config.mlp_width) if config.remat in ("attention", "full") else 0
    products = 2 + {"plain": 4, "splash": 7}.get(config.attention, 5) + (2 if config.remat == "full" else 0)
    attention = products * 2 * d * _computed_positions(config)
    return images * config.context * (config.layers * (6 * weights + repeated + attention) + 6 * d * v)


def muon_flops(config: ModelConfig) -> float:
    """What Muon's orthogonalizations add to a step, whatever its batch: products of matrices s x s and s x r, s <= r.

    Every iteration takes two products with the matrix, s·s·r, and one of the small square.
    """
    d, f = config.width, config.mlp_width
    shapes = [(d, d)] * 4 + [(min(d, f), max(d, f))] * ((_layer_weights(config) - 4 * d**2) // (d * f))
    return config.layers * NEWTON_SCHULZ_ITERATIONS * sum(4 * s * s * r + 2 * s**3 for s, r in shapes)


def _computed_positions(config):
    """Positions that an average one is compared with."""
    t = config.context
    if not config.causal or config.attention == "plain":
        return t
    block = splash_block(t) if config.attention == "splash" else min(128, t)
    return (t + block) / 2


def _layer_flops(config):
    visible = (config.context + 1) / 2 if config.causal else config.context
    return 2 * _layer_weights(config) + 4 * config.width * visible


def _layer_weights(config):
    """Weights of the matrices of a block."""
    return 4 * config.width**2 + (3 if config.activation == "swiglu" else 2) * config.width * config.mlp_width


def peak_flops() -> float | None:
    """bfloat16 FLOP/s of all devices together, or None where the chip is not in the table."""
    chip = CHIPS.get(jax.devices()[0].device_kind)
    return chip and chip.flops * jax.device_count()
