"""How fast the networks train: the largest batch that fits, images/s, MFU, memory, and where the time goes."""

import dataclasses
import functools
import pathlib
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.accelerator.cases import Case
from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from experiments.kernels import busy_shares
from igpt_jax.config import ModelConfig, OptimizerConfig, ParallelConfig
from igpt_jax.model.flops import CHIPS, executed_flops, training_flops
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import autoregressive
from igpt_jax.parallel.mesh import batch_sharding, make_mesh, put_batch
from igpt_jax.parallel.plan import total_bytes
from igpt_jax.train.compile import device_memory
from igpt_jax.train.optimizer import adam
from igpt_jax.train.state import abstract_state, init_state
from igpt_jax.train.step import jit_train_step

GIB = 2**30
LEARNING_RATE = 1e-4
STEP = 8  # images by which a batch grows
# Compiler options whose effect on L with remat "dots" is measured.
FLAGS = {
    "gpu": {
        "dynamic slices fused": {"xla_gpu_enable_dynamic_slice_fusion": True},
        "latency-hiding scheduler": {"xla_gpu_enable_latency_hiding_scheduler": True},
        "no Triton products": {"xla_gpu_enable_triton_gemm": False},
    },
    "tpu": {"latency-hiding scheduler off": {"xla_tpu_enable_latency_hiding_scheduler": False}},
    "cpu": {"optimization level 1": {"xla_backend_optimization_level": 1}},
}


def cases(sizes: Sizes, _: pathlib.Path) -> dict[str, Case]:
    """Every network with every `remat`, each in the largest batch that fits; the flags; what the device can do."""
    found = {
        f"{name}, remat {remat}{', unrolled' if unrolled else ''}": _case(sizes, name, remat, unrolled)
        for name, remat, unrolled in sizes.trained
    }
    flags = {
        f"L, remat dots, {flag}": _case(sizes, "L", "dots", False, options)
        for flag, options in FLAGS[jax.default_backend()].items()
    }
    first = dict(list(found.items())[:8])
    return first | flags | {"ceilings": Case(lambda _: _ceilings())} | found


def _case(sizes, name, remat, unrolled, options=None):
    rolled = dataclasses.replace(sizes.models[name], remat=remat)
    config = dataclasses.replace(rolled, unroll=rolled.layers if unrolled else 1)

    def prepare():
        images = _largest_batch(rolled, sizes.first_images, sizes.images)
        start = time.perf_counter()
        return images, _compile(config, images, options), time.perf_counter() - start

    def run(prepared):
        images, compiled, compile_seconds = prepared
        while True:
            try:
                figures = _steps(config, images, compiled, sizes.repeats)
                return figures | {"compile seconds": compile_seconds}
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error) or images <= STEP:
                    raise
            images -= STEP
            compiled = _compile(config, images, options)

    return Case(run, prepare)


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


def _steps(config, images, compiled, repeats):
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
        "planned GiB": total_bytes(compiled) / GIB,
        "peak GiB so far": memory.get("peak_bytes_in_use", 0) / GIB,
        "loss": loss,
        "kinds": kinds,
        "kernels": kernels,
    }


@functools.cache
def _largest_batch(config: ModelConfig, few: int, most: int) -> int:
    """The images that fit, from how the memory grows from a few to twice as many; at most `most`."""
    limit = device_memory()
    if limit is None:
        return most
    bytes_few, bytes_more = (total_bytes(_compile(config, n, _quickly())) for n in (few, 2 * few))
    room = int((0.98 * limit - bytes_few) / (bytes_more - bytes_few) * few)
    return max(1, min(most, few + room // STEP * STEP))


def _quickly():
    """Options that leave the choice of kernels out, which does not change the memory much."""
    return {"xla_gpu_autotune_level": 0} if jax.default_backend() == "gpu" else None


def _compile(config, images, options):
    mesh, model = _mesh(), ImageGPT(config)
    optimizer = adam(OptimizerConfig(), lambda _: LEARNING_RATE)
    tokens_bt = jax.ShapeDtypeStruct((images, config.context), jnp.int32, sharding=batch_sharding(mesh))
    step = jit_train_step(model, optimizer, autoregressive, 0, mesh)
    return step.lower(abstract_state(model, optimizer, mesh), {"tokens": tokens_bt}).compile(options)


def _mesh():
    return make_mesh(ParallelConfig(), jax.devices()[:1])
