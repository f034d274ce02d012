"""The plan of a codec's training step; see `plan`."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp

from igpt_jax.codes.config import CodecConfig
from igpt_jax.parallel.mesh import batch_sharding, check_batch, replicated
from igpt_jax.parallel.plan import Slice, Work, count_collectives, describe
from igpt_jax.train.codec import first_state, make_optimizer, train_step


def plan_codec(config: CodecConfig, where: Slice) -> dict[str, Any]:
    """Compiles the step for a slice, with the batch split over its devices and all parameters on each of them.

    FLOPs and HBM traffic are the compiler's counts.  Link traffic is the sum of all gradients over the devices.

    Returns:
      As `describe`.
    """
    start, images = time.perf_counter(), config.data.batch_size
    check_batch("data.batch_size", images, where.mesh)
    optimizer = make_optimizer(config)
    state = jax.eval_shape(lambda: first_state(config, optimizer))
    place = replicated(where.mesh)
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
    shape = (images, config.resolution, config.resolution, 3)
    batch = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=batch_sharding(where.mesh))
    step = jax.jit(functools.partial(train_step, config, optimizer), donate_argnums=0)
    compiled = step.lower(state, batch).compile()
    costs: Any = compiled.cost_analysis()
    flops, devices = costs["flops"] * where.mesh.size, where.mesh.size
    gradients = 4 * sum(x.size for x in jax.tree.leaves(state.params))
    work = Work(flops, flops, costs["bytes accessed"], 2 * gradients * (devices - 1) / devices)
    seconds = time.perf_counter() - start
    collectives = count_collectives(compiled)
    return describe(compiled, work, where, collectives=collectives, remat="none", compile_seconds=seconds)
