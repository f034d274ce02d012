"""Two quantizers: a fixed grid of values, which needs no codebook, and the VQ-VAE's moving averages."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LEAST_COUNT = 0.05  # a code vector that fewer latents than this have chosen, on average, is replaced


def fsq(latents: jax.Array, levels: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """Rounds every dimension to one of a few values, evenly spaced in [-1, 1].

    Args:
      latents: (..., d) floats.
      levels: the number of values of each dimension, each at least 2.

    Returns:
      The rounded values (..., d), whose gradient is that of tanh(latents); and the codes (...) int32, whose mixed-radix
      digits are the numbers of the values, the first dimension the least significant.

    Reference:
      Finite scalar quantization, Mentzer et al. 2023 (arXiv:2309.15505).
    """
    bounded = jnp.tanh(latents)
    highest, radices = (jnp.broadcast_to(row, latents.shape) for row in (np.subtract(levels, 1), _radices(levels)))
    digits = jnp.round((bounded + 1) / 2 * highest)
    rounded = digits / highest * 2 - 1
    codes = (digits.astype(jnp.int32) * radices).sum(-1)
    return bounded + jax.lax.stop_gradient(rounded - bounded), codes


def fsq_values(codes: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """Returns the values (..., d) in [-1, 1] of codes (...); the inverse of `fsq`."""
    shape = (*codes.shape, len(levels))
    codes, radices, sizes = (jnp.broadcast_to(x, shape) for x in (codes[..., None], _radices(levels), np.array(levels)))
    return codes // radices % sizes / (sizes - 1) * 2 - 1


def _radices(levels: tuple[int, ...]) -> np.ndarray:
    return np.cumprod((1, *levels[:-1])).astype(np.int32)


class Codebook(NamedTuple):
    """The VQ-VAE's codebook: each vector is the mean of the latents that chose it lately."""

    sums_kd: jax.Array  # moving averages of the sums of these latents
    counts_k: jax.Array  # moving averages of their numbers

    @property
    def vectors_kd(self) -> jax.Array:
        """The code vectors."""
        return self.sums_kd / self.counts_k[:, None]


def first_codebook(rng: jax.Array, codes: int, width: int) -> Codebook:
    """Draws random code vectors, which count as chosen once."""
    return Codebook(jax.random.normal(rng, (codes, width)), jnp.ones(codes))


def vq(latents: jax.Array, vectors_kd: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Replaces every latent by its nearest code vector.

    Args:
      latents: (..., d) floats.
      vectors_kd: the code vectors.

    Returns:
      The code vectors (..., d), whose gradient goes to the latents; and the codes (...) int32.

    Reference:
      van den Oord et al. 2017 (arXiv:1711.00937).
    """
    products = jnp.einsum("...d,kd->...k", latents, vectors_kd, precision="highest")
    lengths = jnp.broadcast_to((vectors_kd**2).sum(-1), products.shape)
    codes = jnp.argmin(lengths - 2 * products, axis=-1).astype(jnp.int32)
    return latents + jax.lax.stop_gradient(vectors_kd[codes] - latents), codes


def update_codebook(
    codebook: Codebook, latents_nd: jax.Array, codes_n: jax.Array, rng: jax.Array, decay: float
) -> Codebook:
    """Moves the code vectors towards the latents that chose them, and replaces those that none choose any more.

    Args:
      codebook: before the step.
      latents_nd: of a batch.
      codes_n: their codes.
      rng: chooses the latents that take the place of unused code vectors.
      decay: of the moving averages.
    """
    chosen_nk = jax.nn.one_hot(codes_n, len(codebook.counts_k))
    counts_k = decay * codebook.counts_k + (1 - decay) * chosen_nk.sum(0)
    sums_kd = decay * codebook.sums_kd + (1 - decay) * chosen_nk.T @ latents_nd
    dead_k = counts_k < LEAST_COUNT
    others_kd = latents_nd[jax.random.randint(rng, counts_k.shape, 0, len(latents_nd))]
    return Codebook(jnp.where(dead_k[:, None], others_kd, sums_kd), jnp.where(dead_k, 1.0, counts_k))
