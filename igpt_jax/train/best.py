"""Which evaluation of a run was its best, and whether that was so long ago that the run ends: from metrics.jsonl."""

from collections.abc import Collection, Sequence

from igpt_jax.config import BEST


def best_step(metrics: Sequence[dict], name: str, steps: Collection[int]) -> int | None:
    """The one of these steps after which `name` was best, the earliest of equals; None where nobody measured it."""
    lines = [line for line in metrics if name in line and line["step"] in steps]
    return BEST[name](lines, key=lambda line: line[name])["step"] if lines else None


def has_stalled(metrics: Sequence[dict], name: str, patience: int) -> bool:
    """Whether the last `patience` evaluations of `name` brought nothing better than one before them."""
    values = [line[name] for line in metrics if name in line]
    return bool(values) and len(values) - 1 - values.index(BEST[name](values)) >= patience
