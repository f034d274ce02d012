"""Counts the arithmetic of a training step, and knows what a chip could do at most."""

import jax

from igpt_jax.config import ModelConfig

# Dense bfloat16 FLOP/s of one device as jax counts devices, by jax's device_kind; from the vendors' data sheets.
PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def training_flops(config: ModelConfig, images: int) -> float:
    """Floating-point operations of forward and backward over `images` images, recomputation not counted.

    Two a weight and position forward and four backward; attention counted over the positions that are visible.
    """
    t, d = config.context, config.width
    weights = config.layers * 12 * d**2 + d * config.vocabulary
    visible = (t + 1) / 2 if config.causal else t
    attention = config.layers * 2 * d * visible  # multiply-adds a position: scores and mixture
    return 6.0 * images * t * (weights + attention)


def peak_flops() -> float | None:
    """bfloat16 FLOP/s of all devices together, or None where the chip is not in the table."""
    peak = PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return peak and peak * jax.device_count()
