"""Measures how fast the features of all layers are computed, and a probe of one layer is solved."""

import pathlib
import time
from typing import Any

import jax
import numpy as np

from experiments.accelerator.cases import Case
from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from igpt_jax.config import ModelConfig, ParallelConfig
from igpt_jax.evaluate.features import image_features
from igpt_jax.evaluate.logistic_regression import fit_probes
from igpt_jax.model.flops import chip_of_device, forward_flops
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.state import init_params

CLASSES, L2 = 10, 1e-3


def cases(sizes: Sizes, _: pathlib.Path) -> dict[str, Case]:
    """The cases by name."""
    images, width = sizes.probe
    return {
        f"features of L, batch {sizes.features}": Case(lambda _: _features(sizes.models["L"], sizes)),
        f"L-BFGS, {CLASSES} classes, {images:,} x {width:,}": Case(lambda _: _probe(images, width)),
    }


def _features(config: ModelConfig, sizes: Sizes) -> dict[str, Any]:
    """Computes features; the time includes their transfer to the host."""
    mesh, model = make_mesh(ParallelConfig(), jax.devices()[:1]), ImageGPT(config)
    params, rng = init_params(model, 0, mesh), np.random.default_rng(0)
    tokens_bt = rng.integers(0, config.vocabulary, (sizes.features, config.context)).astype(np.int32)
    start = time.perf_counter()
    compiled = image_features.lower(model, params, {"tokens": tokens_bt}).compile()
    compile_seconds = time.perf_counter() - start

    def features() -> np.ndarray:
        return np.asarray(compiled(params, {"tokens": tokens_bt}))

    features()
    took = min(seconds(features) for _ in range(sizes.repeats))
    figures = {"images/s": sizes.features / took, "compile seconds": compile_seconds}
    if chip := chip_of_device(jax.devices()):
        figures["share of peak"] = forward_flops(config, sizes.features) / took / chip.flops
    return figures


def _probe(images: int, width: int) -> dict[str, Any]:
    """Solves one layer at one L2 strength, from features in the host's memory; a first call compiles."""
    rng = np.random.default_rng(0)
    labels_b = rng.integers(0, CLASSES, images).astype(np.int32)
    means_cd = 0.1 * rng.standard_normal((CLASSES, width), np.float32)
    features_bd = means_cd[labels_b] + rng.standard_normal((images, width), np.float32)
    solved = {}

    def solve() -> None:
        solved["probes"] = fit_probes(features_bd[None], labels_b, CLASSES, (L2,))

    first = seconds(solve)
    took = seconds(solve)
    probes = solved["probes"]
    return {
        "seconds": took,
        "compile seconds": first - took,
        "objective": float(probes.losses_ls[0, 0]),
        "gradient norm": float(probes.gradient_norms_ls[0, 0]),
    }
