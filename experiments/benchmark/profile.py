"""Shows where our own time goes: the kinds of operations in a traced call, and the least time of its matmuls."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark.measure import SECONDS, Result, seconds
from experiments.benchmark.ours import SMALL, S, drawing, training_step
from experiments.benchmark.probe import CLASSES, L2, synthetic_features
from experiments.kernels import busy_shares
from igpt_jax.config import ModelConfig
from igpt_jax.evaluate.logistic_regression import fit_probes
from igpt_jax.model.flops import executed_flops
from igpt_jax.report.curves import plot_shares


@dataclasses.dataclass(frozen=True)
class Case:
    """A function to trace."""

    run: Callable[[], object]
    flops: float = 0.0  # of its matmuls, if they bound its time


def profile(picture: pathlib.Path | None) -> list[Result]:
    """Measures each kind's share of the time in which threads were busy.

    Args:
      picture: the file of the plot, or None for no plot.
    """
    shares, results = {}, []
    for name, case in _cases():
        case.run()
        case.run()
        shares[name], _ = busy_shares(case.run)
        for kind, share in shares[name].items():
            results.append(Result(f"profile, {name}: {kind}", "% of the busy time", 100 * share))
        if case.flops:
            took, ceiling = min(seconds(case.run) for _ in range(3)), _product_speed()
            remark = (
                f"its {case.flops / 1e9:,.0f} GFLOP need {case.flops / ceiling:.2f} s at the {ceiling / 1e9:,.0f} "
                "GFLOP/s of XLA's fastest matmul here"
            )
            results.append(Result(f"profile, {name}", SECONDS, took, remark=remark))
    if picture:
        plot_shares(picture, "Where the time goes (% of the threads' busy time)", shares)
    return results


def _cases() -> Iterator[tuple[str, Case]]:
    yield "training step, L=4 d=256, batch 4", _training(SMALL, images=4)
    yield "training step, iGPT-S, batch 1", _training(S, images=1)
    yield "sampling, L=4 d=256, batch 8", Case(drawing(SMALL, images=8))
    yield "25 probes of 10,000 x 512, three strengths", Case(_probing())


def _training(config: ModelConfig, images: int) -> Case:
    step, _ = training_step(config, np.zeros((images, config.context), np.int32))
    return Case(step, executed_flops(config, images))


def _probing() -> Callable[[], object]:
    features_lbd, labels_b = synthetic_features()
    return lambda: fit_probes(features_lbd, labels_b, CLASSES, L2)


def _product_speed() -> float:
    """FLOP/s of the fastest of a few float32 matmuls, (n, k) x (k, m), of sizes that the networks have."""

    def speed(n: int, k: int, m: int) -> float:
        a_nk, b_km, product = jnp.ones((n, k)), jnp.ones((k, m)), jax.jit(jnp.matmul)
        product(a_nk, b_km).block_until_ready()
        return 2 * n * k * m / min(seconds(lambda: product(a_nk, b_km).block_until_ready()) for _ in range(20))

    return max(speed(*sizes) for sizes in ((4096, 256, 1024), (1024, 512, 2048), (2048, 2048, 2048)))
