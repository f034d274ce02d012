"""Rotary positions in two dimensions: half of every head turns with the row, the other half with the column.

Queries and keys are turned by angles in proportion to their pixels' coordinates, so that their product depends on the
distance between the two pixels alone (Su et al. 2021, arXiv:2104.09864; by axis as in Heo et al. 2024,
arXiv:2403.13298).
"""

import jax
import jax.numpy as jnp

LONGEST = 100.0  # pixels a radian of the slowest pair; the fastest has 1


def rotate(x_bthk: jax.Array, pixel_bt: jax.Array, resolution: int) -> jax.Array:
    """Turns every pair of components by its frequency times the row or the column of a pixel.

    Args:
      x_bthk: queries or keys; k divisible by 4.
      pixel_bt: (b, t) or (1, t) integers, raster order.  -1 is the start vector, which stands at row -1, column -1:
        its distance tells how far a pixel lies from the top and from the left.
      resolution: pixels in a row.
    Returns:
      (b, t, h, k) in the type of x; float32 inside.
    """
    row_bt, column_bt = pixel_bt // resolution, jnp.where(pixel_bt < 0, -1, pixel_bt % resolution)
    frequencies = x_bthk.shape[-1] // 4
    frequency_f = LONGEST ** (-jnp.arange(frequencies) / frequencies)
    coordinate_bt2 = jnp.stack([row_bt, column_bt], axis=-1)
    angle_bt1f = (coordinate_bt2[..., None] * frequency_f[None, None, None]).reshape(*pixel_bt.shape, 1, -1)
    cos_bt1f, sin_bt1f = jnp.cos(angle_bt1f), jnp.sin(angle_bt1f)
    first_bthf, second_bthf = jnp.split(x_bthk.astype(jnp.float32), 2, axis=-1)
    turned = [first_bthf * cos_bt1f - second_bthf * sin_bt1f, second_bthf * cos_bt1f + first_bthf * sin_bt1f]
    return jnp.concatenate(turned, axis=-1).astype(x_bthk.dtype)
