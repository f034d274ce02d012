"""How fast the networks train: the largest batch that fits, images/s, MFU, memory, and where the time goes."""

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from experiments.kernels import busy_shares
from igpt_jax.config import ModelConfig, OptimizerConfig, ParallelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.flops import CHIPS, executed_flops, training_flops
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import autoregressive
from igpt_jax.parallel.mesh import batch_sharding, make_mesh, put_batch
from igpt_jax.parallel.plan import total_bytes
from igpt_jax.train.optimizer import adam
from igpt_jax.train.state import abstract_state, compile_step, device_memory, init_state

GIB = 2**30
LEARNING_RATE = 1e-4
STEP = 8  # images by which a batch grows
BEST_REMAT = {"S": "none", "M": "dots", "L": "dots"}  # measured first
REMAT = ("none", "dots", "attention", "full")
# Compiler options whose effect on L is measured.
FLAGS = {
    "gpu": {
        "no Triton products": {"xla_gpu_enable_triton_gemm": "false"},
        "latency-hiding scheduler": {"xla_gpu_enable_latency_hiding_scheduler": "true"},
    },
    "tpu": {"latency-hiding scheduler off": {"xla_tpu_enable_latency_hiding_scheduler": "false"}},
    "cpu": {"optimization level 1": {"xla_backend_optimization_level": "1"}},
}


def cases(sizes: Sizes, _: pathlib.Path) -> dict[str, Callable[[], dict]]:
    """Name -> what measures a network with a `remat`: each network's likely best first, L before all."""
    order = sorted(sizes.models, key="LSM".index)
    first = {f"{name}, remat {BEST_REMAT[name]}": (name, BEST_REMAT[name]) for name in order}
    others = {f"{name}, remat {remat}": (name, remat) for name in order for remat in REMAT}
    first_cases = {case: functools.partial(_measure, sizes, *what) for case, what in first.items()}
    found = {case: functools.partial(_measure, sizes, *what) for case, what in others.items()}
    flags = {
        f"L, remat {BEST_REMAT['L']}, {flag}": functools.partial(_measure, sizes, "L", BEST_REMAT["L"], options)
        for flag, options in FLAGS[jax.default_backend()].items()
    }
    return first_cases | {"ceilings": _ceilings} | flags | found


def _ceilings() -> dict:
    """What the device reaches at most: a bfloat16 product of large matrices, and a copy, read and written."""
    side = 8192 if jax.default_backend() != "cpu" else 256
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    a = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    large = jnp.ones((8 * side, side), jnp.float32)

    def ten(function, *arguments):
        def run():
            for _ in range(10):
                result = function(*arguments)
            result.block_until_ready()

        run()
        return min(seconds(run) for _ in range(3)) / 10

    return {"FLOP/s": 2 * side**3 / ten(product, a, a), "bytes/s": 2 * large.nbytes / ten(copy, large)}


def _measure(sizes, name, remat, options=None):
    config = dataclasses.replace(sizes.models[name], remat=remat)
    images = _largest_batch(config, sizes)
    while images >= 1:
        try:
            return _steps(config, images, sizes.repeats, options)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            images -= STEP
    raise InputError(f"not even one image fits with remat {remat}")


def _steps(config, images, repeats, options):
    start = time.perf_counter()
    compiled = _compile(config, images, options)
    compile_seconds = time.perf_counter() - start
    mesh, model = _mesh(), ImageGPT(config)
    state = init_state(model, adam(OptimizerConfig(), lambda _: LEARNING_RATE), 0, mesh)
    tokens_bt = np.random.default_rng(0).integers(0, config.vocabulary, (images, config.context)).astype(np.int32)
    batch = put_batch({"tokens": tokens_bt}, mesh)

    def two_steps():
        nonlocal state
        for _ in range(2):
            state, metrics = compiled(state, batch)
        return float(metrics["nats_per_token"])

    two_steps()
    step_seconds = statistics.median(seconds(two_steps) for _ in range(repeats)) / 2
    chip = CHIPS.get(jax.devices()[0].device_kind)
    memory = jax.devices()[0].memory_stats() or {}
    figures = {"images": images, "images/s": images / step_seconds, "step seconds": step_seconds}
    if chip:
        figures["MFU"] = training_flops(config, images) / step_seconds / chip.flops
        figures["executed share of peak"] = executed_flops(config, images) / step_seconds / chip.flops
    loss = two_steps()
    kinds, kernels = busy_shares(two_steps)
    return figures | {
        "compile seconds": compile_seconds,
        "planned GiB": total_bytes(compiled) / GIB,
        "peak GiB so far": memory.get("peak_bytes_in_use", 0) / GIB,
        "loss": loss,
        "kinds": kinds,
        "kernels": kernels,
    }


def _largest_batch(config: ModelConfig, sizes: Sizes) -> int:
    """The images that fit, from how the memory of two small batches grows; at most `sizes.images`."""
    limit, few = device_memory(), sizes.first_images
    if limit is None:
        return sizes.images
    bytes_few, bytes_more = (total_bytes(_compile(config, n, _quickly())) for n in (few, 2 * few))
    room = int((0.98 * limit - bytes_few) / (bytes_more - bytes_few) * few)
    return max(1, min(sizes.images, few + room // STEP * STEP))


def _quickly():
    """Options that leave the choice of kernels out, which does not change the memory much."""
    return {"xla_gpu_autotune_level": "0"} if jax.default_backend() == "gpu" else None


def _compile(config, images, options):
    mesh, model = _mesh(), ImageGPT(config)
    optimizer = adam(OptimizerConfig(), lambda _: LEARNING_RATE)
    tokens_bt = jax.ShapeDtypeStruct((images, config.context), jnp.int32, sharding=batch_sharding(mesh))
    step = compile_step(model, optimizer, autoregressive, 0, mesh)
    return step.lower(abstract_state(model, optimizer, mesh), {"tokens": tokens_bt}).compile(options)


def _mesh():
    return make_mesh(ParallelConfig(), jax.devices()[:1])
