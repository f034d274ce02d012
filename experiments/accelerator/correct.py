"""Checks that the accelerator computes what the CPU does: attention, gradients, training, cached sampling, meshes."""

import concurrent.futures
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.accelerator.cases import Case
from experiments.accelerator.data import digits
from experiments.accelerator.learning import learn
from experiments.accelerator.sizes import Sizes
from igpt_jax.config import DataConfig, ModelConfig, OptimizerConfig, ParallelConfig, RunConfig
from igpt_jax.generate.sample import Sampler, image_keys, sample
from igpt_jax.model.attention import BACKENDS, LANES, attend
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.objectives import autoregressive
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.state import init_params
from igpt_jax.types import Params

DIGITS = ModelConfig(layers=4, width=64, heads=2, resolution=12, vocabulary=16, attention="blockwise", zero_heads=False)
PLATFORMS = {"cudnn": "gpu", "splash": "tpu"}  # backends that run on one platform only


def cases(sizes: Sizes, _: pathlib.Path) -> dict[str, Case]:
    """The cases by name; each finds the largest difference from the CPU or from plain attention."""
    differences_by_name: dict[str, tuple[Callable[[], dict[str, Any]], dict[str, float]]] = {
        f"attention {backend} {dtype}": (
            functools.partial(_attention, backend, dtype, sizes.attention),
            {"largest": 0.03},
        )
        for dtype in ("bfloat16", "float32")
        for backend in reversed(BACKENDS)
        if _runs(backend, dtype)
    }
    close, near = {"logits": 1e-4, "gradients": 1e-4}, {"logits": 0.05, "gradients": 0.05}
    differences_by_name |= {
        "logits and gradients, full float32": (functools.partial(_model, "float32", "highest"), close),
        "logits and gradients, bfloat16": (functools.partial(_model, "bfloat16", "default"), near),
        "logits and gradients, default precision": (functools.partial(_model, "float32", "default"), near),
        "cached drawing": (_cached_sampling, {"largest logit difference": 1e-3}),
        "loss curve": (
            functools.partial(_loss_curve, sizes.steps),
            {f"{dtype}, largest difference": 0.1 for dtype in ("float32", "bfloat16")},
        ),
    }
    if jax.device_count() > 1:
        differences_by_name["meshes"] = _meshes, {"largest difference": 0.01}
    # Nothing is timed here, so the cases may run at the same time: the work is done in `prepare`.
    return {
        name: Case(prepare=differences, run=functools.partial(_within, bounds))
        for name, (differences, bounds) in differences_by_name.items()
    }


def _within(bounds: dict[str, float], figures: dict[str, Any]) -> dict[str, Any]:
    """Returns the figures.

    Raises:
      ValueError: one of them is NaN, or above its bound.
    """
    for name, bound in bounds.items():
        if not figures[name] <= bound:
            raise ValueError(f"{name} is {figures[name]:.4g}, and should be at most {bound:g}; all figures: {figures}")
    return figures


def _runs(backend: str, dtype: str) -> bool:
    """Whether a backend runs on this platform with this dtype."""
    platform = jax.default_backend()
    return PLATFORMS.get(backend, platform) == platform and (backend != "cudnn" or dtype == "bfloat16")


def _attention(backend: str, dtype: str, shapes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The largest errors of output and gradients against plain attention in float32, relative to the largest value."""

    def errors(case: tuple[tuple[int, int], bool]) -> list[float]:
        (context, head_dim), causal = case
        keys = jax.random.split(jax.random.key(context), 4)
        q, k, v, weight = (jax.random.normal(key, (2, context, 2, head_dim), dtype) for key in keys)
        with jax.default_matmul_precision("highest"):
            wide = [x.astype(jnp.float32) for x in (q, k, v)]
            expected = _outputs(*wide, weight.astype(jnp.float32), causal=causal, backend="plain")
        outputs = _outputs(q, k, v, weight, causal=causal, backend=backend)
        return [_difference(a, b) for a, b in zip(outputs, expected, strict=True)]

    cases = [
        ((context, head_dim), causal)
        for context, head_dim in shapes
        for causal in (True, False)
        if backend != "splash" or context % LANES == 0
    ]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:  # most of the time is compilation
        errors_by_case = dict(zip(cases, pool.map(errors, cases), strict=True))
    named = {
        f"{context}x{head_dim} {'causal' if causal else 'full'}": its_errors
        for ((context, head_dim), causal), its_errors in errors_by_case.items()
    }
    return {"largest": float(np.max(list(named.values()))), "output, dq, dk, dv": named}


@functools.partial(jax.jit, static_argnames=("causal", "backend"))
def _outputs(
    q: jax.Array, k: jax.Array, v: jax.Array, weight: jax.Array, *, causal: bool, backend: str
) -> tuple[jax.Array, ...]:
    """The output, and the gradients of sum(output * weight) with respect to q, k and v; all (b, t, h, k)."""

    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attend(q, k, v, causal=causal, backend=backend)

    out, backward = jax.vjp(attention, q, k, v)
    return out, *backward(weight.astype(out.dtype))


def _difference(array: Any, expected: Any) -> float:
    """The largest difference of two arrays, relative to the largest expected value."""
    array, expected = (np.asarray(jax.device_get(x), np.float64) for x in (array, expected))
    return float(np.abs(array - expected).max() / np.abs(expected).max())


def _mesh(platform: str | None = None) -> Mesh:
    return make_mesh(ParallelConfig(), jax.devices(platform)[:1])


def _model(dtype: str, precision: str) -> dict[str, float]:
    """The largest relative differences between this device and the CPU in float32."""
    config = dataclasses.replace(DIGITS, dtype=dtype)

    def outputs(config: ModelConfig, mesh: Mesh) -> Any:
        params = init_params(ImageGPT(DIGITS), 0, _mesh("cpu"))  # the same parameters on both devices
        params = jax.device_put(jax.device_get(params), mesh.devices.flat[0])
        tokens_bt = jax.device_put(digits()[:8], mesh.devices.flat[0])

        @jax.jit
        def logits_and_gradients(params: Params) -> Any:
            logits_btv = ImageGPT(config).apply({"params": params}, tokens_bt)
            batch = {"tokens": tokens_bt}
            grads, _ = jax.grad(autoregressive, argnums=1, has_aux=True)(ImageGPT(config), params, batch, None)
            return logits_btv, grads

        return jax.device_get(logits_and_gradients(params))

    logits, grads = outputs(DIGITS, _mesh("cpu"))
    with jax.default_matmul_precision(precision):
        own_config = dataclasses.replace(config, attention="auto")
        own_logits, own_grads = outputs(own_config, _mesh())
    return {
        "logits": _difference(own_logits, logits),
        "gradients": float(np.max(jax.tree.leaves(jax.tree.map(_difference, own_grads, grads)))),
    }


def _loss_curve(steps: int) -> dict[str, Any]:
    """Losses of the same training on the CPU and here: the largest difference, and the means of the last ten steps."""
    cpu = _train(DIGITS, _mesh("cpu"), steps)
    curves = {"CPU": cpu.tolist()}
    figures: dict[str, Any] = {"CPU, last ten": float(cpu[-10:].mean())}
    for name, dtype in (("float32", "float32"), ("bfloat16", "bfloat16")):
        losses = _train(dataclasses.replace(DIGITS, dtype=dtype, attention="auto"), _mesh(), steps)
        curves[name] = losses.tolist()
        figures |= {
            f"{name}, last ten": float(losses[-10:].mean()),
            f"{name}, largest difference": float(np.abs(losses - cpu).max()),
        }
    return figures | {"nats per token": curves}


def _train(config: ModelConfig, mesh: Mesh, steps: int) -> np.ndarray:
    """Trains on the digits with Adam, and returns the loss of every step, (steps,), nats per token."""
    run = RunConfig(
        model=config, steps=steps, data=DataConfig(batch_size=32), optimizer=OptimizerConfig(learning_rate=3e-3)
    )
    params = jax.device_get(init_params(ImageGPT(DIGITS), 0, _mesh("cpu")))
    return learn(run, params, digits(), mesh).losses


def _cached_sampling() -> dict[str, float]:
    """Compares sampling from a cache with the full forward pass, and sampling in windows with single positions.

    Greedy tokens must have the largest logits of the full forward pass; the figures say how far below they are.
    """
    model = ImageGPT(dataclasses.replace(DIGITS, attention="auto"))
    params, nothing_bt, rngs_b = init_params(model, 0, _mesh()), np.zeros((8, 0), np.int32), image_keys(0, 8)
    with jax.default_matmul_precision("highest"):
        greedy_bt = sample(model, params, rngs_b, nothing_bt, Sampler(temperature=0)).tokens
        logits_btv = model.apply({"params": params}, greedy_bt)
        drawn_bt = sample(model, params, rngs_b, nothing_bt).tokens
        windowed_bt = sample(model, params, rngs_b, nothing_bt, window=8).tokens
    chosen_bt = jnp.take_along_axis(logits_btv, greedy_bt[..., None], axis=-1)[..., 0]
    below_bt = logits_btv.max(axis=-1) - chosen_bt
    return {
        "equal greedy tokens": float((logits_btv.argmax(axis=-1) == greedy_bt).mean()),
        "largest logit difference": float(below_bt.max()),
        "spread of logits": float(logits_btv.std()),
        "equal tokens with a window of 8": float((drawn_bt == windowed_bt).mean()),
    }


def _meshes() -> dict[str, float]:
    """Losses after twelve steps on every mesh of the devices, which must agree."""
    losses = {}
    for model_ways in [ways for ways in range(1, jax.device_count() + 1) if jax.device_count() % ways == 0]:
        if DIGITS.heads % model_ways == 0:
            mesh = make_mesh(ParallelConfig(model=model_ways))
            config = dataclasses.replace(DIGITS, attention="auto")
            losses[f"data {mesh.shape['data']}, model {model_ways}"] = float(_train(config, mesh, 12)[-1])
    return losses | {"largest difference": float(np.ptp(list(losses.values())))}
