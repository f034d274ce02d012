"""Which checkpoints stay."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN, PreservationPolicy

from igpt_jax.config import RunConfig
from igpt_jax.train.best import best_step
from igpt_jax.train.metrics import read_metrics


def retention(config: RunConfig, metrics: pathlib.Path) -> PreservationPolicy:
    """Keeps the newest, those of every so many steps, and the best by what `metrics` (a metrics.jsonl) says of it."""
    policies = [LatestN(config.keep_checkpoints)]
    if config.keep_every:
        policies.append(EveryNSteps(config.keep_every))
    if config.keep_best:
        policies.append(_Best(metrics, config.keep_best))
    return AnyPreservationPolicy(policies)


@dataclasses.dataclass
class _Best(PreservationPolicy):
    metrics: pathlib.Path
    name: str

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        best = best_step(read_metrics(self.metrics), self.name, {checkpoint.step for checkpoint in checkpoints})
        return [checkpoint.step == best for checkpoint in checkpoints]
