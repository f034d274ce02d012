import itertools
import time

import jax
import numpy as np

from igpt_jax.config import ParallelConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.prefetch import DeviceBatches

MESH = make_mesh(ParallelConfig(), jax.devices()[:2])


def numbered(drawn):
    for i in itertools.count():
        drawn.append(i)
        yield {"index": np.full(2, i)}


def test_every_batch_arrives_in_order_split_over_the_mesh_and_one_ahead():
    drawn = []
    batches = DeviceBatches(numbered(drawn), MESH)
    for i in range(4):
        index = next(batches)["index"]
        assert index.tolist() == [i, i]
        assert len(index.sharding.device_set) == 2
        assert drawn == list(range(i + 2))


def test_a_stream_that_ends_is_delivered_whole():
    assert [int(batch["index"][0]) for batch in DeviceBatches(itertools.islice(numbered([]), 3), MESH)] == [0, 1, 2]


def test_what_the_loop_waits_is_the_time_its_input_took():
    def slow():
        for batch in itertools.islice(numbered([]), 3):
            time.sleep(0.05)
            yield batch

    batches = DeviceBatches(slow(), MESH)
    list(batches)
    assert batches.waited >= 0.15
