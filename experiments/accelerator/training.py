"""Measures training in the largest batch that fits: images/s, MFU, memory, and where the time goes."""

import dataclasses
import functools
import pathlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Compiled

from experiments.accelerator.cases import Case
from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from experiments.kernels import busy_shares
from igpt_jax.config import ModelConfig, OptimizerConfig, ParallelConfig
from igpt_jax.model.flops import chip_of_device, executed_flops, training_flops
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
STEP = 8  # batches are multiples of so many images
# For each platform, compiler options whose effect on L with remat "dots" is measured.
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
    """The cases by name: networks with several `remat` policies, compiler options, and the ceilings of the device."""
    trainings = {
        f"{name}, remat {remat}{', unrolled' if unrolled else ''}": _case(sizes, name, remat, unrolled)
        for name, remat, unrolled in sizes.trained
    }
    flags = {
        f"L, remat dots, {flag}": _case(sizes, "L", "dots", False, options)
        for flag, options in FLAGS[jax.default_backend()].items()
    }
    first = dict(list(trainings.items())[:8])  # they are the most important ones
    return first | flags | {"ceilings": Case(lambda _: _ceilings())} | trainings


def _case(sizes: Sizes, name: str, remat: str, unrolled: bool, options: dict[str, Any] | None = None) -> Case:
    rolled = dataclasses.replace(sizes.models[name], remat=remat)
    config = dataclasses.replace(rolled, unroll=rolled.layers if unrolled else 1)

    def prepare() -> tuple[int, Compiled, float]:
        images = _largest_batch(rolled, sizes.first_images, sizes.images)
        start = time.perf_counter()
        return images, _compile(config, images, options), time.perf_counter() - start

    def run(prepared: tuple[int, Compiled, float]) -> dict[str, Any]:
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


def _ceilings() -> dict[str, float]:
    """Measures the highest speeds of the device: a matmul of large bfloat16 matrices, and a copy in memory."""
    side = 8192 if jax.default_backend() != "cpu" else 256
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)
    a = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    large = jnp.ones((8 * side, side), jnp.float32)

    def seconds_of(function: Callable[..., jax.Array], *arguments: jax.Array) -> float:
        def run() -> None:
            for _ in range(10):
                result = function(*arguments)
            result.block_until_ready()

        run()
        return min(seconds(run) for _ in range(3)) / 10

    return {"FLOP/s": 2 * side**3 / seconds_of(product, a, a), "bytes/s": 2 * large.nbytes / seconds_of(copy, large)}


def _steps(config: ModelConfig, images: int, compiled: Compiled, repeats: int) -> dict[str, Any]:
    """Times training steps, and traces two of them."""
    mesh, model = _mesh(), ImageGPT(config)
    state = init_state(model, adam(OptimizerConfig(), lambda _: LEARNING_RATE), 0, mesh)
    tokens_bt = np.random.default_rng(0).integers(0, config.vocabulary, (images, config.context)).astype(np.int32)
    batch = put_batch({"tokens": tokens_bt}, mesh)

    def two_steps() -> float:
        nonlocal state
        for _ in range(2):
            state, metrics = compiled(state, batch)
        return float(metrics["nats_per_token"])

    two_steps()
    step_seconds = statistics.median(seconds(two_steps) for _ in range(repeats)) / 2
    chip = chip_of_device(jax.devices())
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
    """Estimates how many images fit, at most `most`, from the memory planned for `few` images and for twice as many."""
    limit = device_memory()
    if limit is None:
        return most
    bytes_few, bytes_more = (total_bytes(_compile(config, n, _quickly())) for n in (few, 2 * few))
    room = int((0.98 * limit - bytes_few) / (bytes_more - bytes_few) * few)
    return max(1, min(most, few + room // STEP * STEP))


def _quickly() -> dict[str, Any] | None:
    """Compiler options that skip the search for the fastest kernels, which hardly changes the memory."""
    return {"xla_gpu_autotune_level": 0} if jax.default_backend() == "gpu" else None


def _compile(config: ModelConfig, images: int, options: dict[str, Any] | None) -> Compiled:
    mesh, model = _mesh(), ImageGPT(config)
    optimizer = adam(OptimizerConfig(), lambda _: LEARNING_RATE)
    tokens_bt = jax.ShapeDtypeStruct((images, config.context), jnp.int32, sharding=batch_sharding(mesh))
    step = jit_train_step(model, optimizer, autoregressive, 0, mesh)
    return step.lower(abstract_state(model, optimizer, mesh), {"tokens": tokens_bt}).compile(options)


def _mesh() -> Mesh:
    return make_mesh(ParallelConfig(), jax.devices()[:1])
