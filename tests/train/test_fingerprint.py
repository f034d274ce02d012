"""The fingerprint changes with the content, and with nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from igpt_jax.config import ParallelConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.fingerprint import fingerprints

ARRAY = np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32)


def fingerprint(array):
    return fingerprints(jnp.asarray(array))[""]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.uint32, jnp.int8])
def test_every_single_bit_counts(dtype):
    array = np.asarray(jnp.asarray(ARRAY * 10, dtype))
    found = {fingerprint(array)}
    for bit in range(8 * array.nbytes):
        changed = np.frombuffer(array.tobytes(), np.uint8).copy()
        changed[bit // 8] ^= 1 << bit % 8
        found.add(fingerprint(changed.view(array.dtype).reshape(array.shape)))
    assert len(found) == 1 + 8 * array.nbytes


def test_places_count_and_the_sign_of_zero_too():
    assert len({fingerprint(array) for array in (ARRAY, ARRAY[::-1], ARRAY[:, ::-1])}) == 3
    assert fingerprint(np.zeros(4, np.float32)) != fingerprint(-np.zeros(4, np.float32))
    assert fingerprint(np.zeros(4, np.float32)) != fingerprint(np.zeros(5, np.float32))


def test_the_sharding_does_not_count():
    mesh = make_mesh(ParallelConfig(4, 2), jax.devices())
    specs = [(), ("data",), ("data", "model"), (None, ("data", "model"))]
    placed = [jax.device_put(ARRAY, NamedSharding(mesh, PartitionSpec(*spec))) for spec in specs]
    assert len({fingerprint(array) for array in placed} | {fingerprint(ARRAY)}) == 1
