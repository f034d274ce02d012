"""One number for an array's content, the same on any mesh: what a checkpoint was saved with, and must come back as."""

from typing import Any

import jax
import jax.numpy as jnp


def fingerprints(tree: Any) -> dict[str, int]:
    """A 32-bit number for every array of a tree, by its path.

    Each element's bits, mixed with its place, add up modulo 2**32. A change of one element always changes the sum, and
    a change of many escapes once in 4 billion times. Sums do not depend on their order, hence not on the sharding; each
    device reads its own shards only, so the cost is one pass over the memory.
    """
    leaves = jax.tree.leaves_with_path(tree)
    numbers = map(int, jax.device_get(_fingerprints([leaf for _, leaf in leaves])))
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves)
    return dict(zip(names, numbers, strict=True))


@jax.jit
def _fingerprints(arrays: list[jax.Array]) -> list[jax.Array]:
    return [jnp.sum(_mix(_bits(x) ^ _mix(_places(x.shape))), dtype=jnp.uint32) for x in arrays]


def _bits(x: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)


def _places(shape: tuple[int, ...]) -> jax.Array:
    """Each element's number in row-major order, plus one."""
    places, stride = jnp.ones(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        places += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return places


def _mix(bits: jax.Array) -> jax.Array:
    """The finaliser of MurmurHash3 (Appleby): invertible, and every bit in changes about half of the bits out."""
    bits = (bits ^ bits >> 16) * jnp.uint32(0x85EBCA6B)
    bits = (bits ^ bits >> 13) * jnp.uint32(0xC2B2AE35)
    return bits ^ bits >> 16
