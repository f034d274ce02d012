"""Rotary position embeddings in two dimensions: by row for half of every head, by column for the other half.

Queries and keys are rotated by angles proportional to the coordinates of their pixels, so their dot product depends on
the distance between the two pixels alone.

Reference:
  Su et al. 2021, arXiv:2104.09864; by axis as in Heo et al. 2024, arXiv:2403.13298.
"""

import jax
import jax.numpy as jnp

LONGEST = 100.0  # bounds how many pixels the slowest pair of components takes for one radian; the fastest takes 1


def rotate(x_bthk: jax.Array, pixel_bt: jax.Array, resolution: int) -> jax.Array:
    """Rotates every pair of components by its frequency times the row or the column of its pixel.

    Args:
      x_bthk: queries or keys, any float type; k divisible by 4.
      pixel_bt: (b, t) or (1, t) integers in raster order. -1 is the start vector, which stands at row -1 and column -1:
        the distance to it tells how far a pixel lies from the top and from the left of the image.
      resolution: pixels in a row.

    Returns:
      (b, t, h, k) in the type of x; computed in float32.
    """
    row_bt, column_bt = pixel_bt // resolution, jnp.where(pixel_bt < 0, -1, pixel_bt % resolution)
    frequencies = x_bthk.shape[-1] // 4
    frequency_f = LONGEST ** (-jnp.arange(frequencies) / frequencies)
    coordinate_bt2 = jnp.stack([row_bt, column_bt], axis=-1)
    angle_bt1f = (coordinate_bt2[..., None] * frequency_f[None, None, None]).reshape(*pixel_bt.shape, 1, -1)
    cos_bt1f, sin_bt1f = jnp.cos(angle_bt1f), jnp.sin(angle_bt1f)
    first_bthf, second_bthf = jnp.split(x_bthk.astype(jnp.float32), 2, axis=-1)
    rotated = [first_bthf * cos_bt1f - second_bthf * sin_bt1f, second_bthf * cos_bt1f + first_bthf * sin_bt1f]
    return jnp.concatenate(rotated, axis=-1).astype(x_bthk.dtype)
