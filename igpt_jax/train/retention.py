"""Which checkpoints stay."""

import dataclasses
import pathlib

from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, EveryNSteps, LatestN, PreservationPolicy

from igpt_jax.config import BEST, RunConfig
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

    def should_preserve(self, checkpoints, *, context):
        steps = {checkpoint.step for checkpoint in checkpoints}
        lines = [line for line in read_metrics(self.metrics) if line["step"] in steps and self.name in line]
        best = BEST[self.name](lines, key=lambda line: line[self.name])["step"] if lines else None
        return [checkpoint.step == best for checkpoint in checkpoints]
