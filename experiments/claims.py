"""Decides ten claims of the paper from the measured tables, by rules that were written before there were results.

The tables beyond the paper try three of the claims again, by the same rules.

A difference is computed for each seed.  It counts as positive if its mean over the seeds exceeds its standard error
(the standard deviation of the differences, divided by the square root of the number of seeds).  With three seeds this
is a weak test: it says more about the sign of a difference than about its size.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from experiments import figure3_loss_and_probe, in_color, scales
from igpt_jax.errors import InputError

FAR = 10.0  # points of accuracy


class Difference(NamedTuple):
    """The mean of a difference over the seeds, and its standard error."""

    mean: float
    error: float  # standard error of the mean
    values: tuple[float, ...]  # of each seed

    @classmethod
    def of(cls, values_n: np.ndarray) -> "Difference":
        """Summarizes the differences of all seeds, (n,)."""
        error = float(np.std(values_n, ddof=1) / np.sqrt(len(values_n)))
        return cls(float(np.mean(values_n)), error, tuple(float(value) for value in values_n))

    def exceeds(self, threshold: float = 0.0) -> bool:
        """Whether the mean exceeds the threshold by more than the standard error."""
        return self.mean - self.error > threshold

    def includes_zero(self, errors: float) -> bool:
        """Whether the mean is at most this many standard errors away from zero."""
        return abs(self.mean) <= errors * self.error


class Measured:
    """The values of measured rows by table and key, for the seeds that every row has."""

    def __init__(self, tables: Mapping[str, Sequence[dict[str, Any]]]):
        self._rows = {
            (table, row["key"]): row["values"] for table, rows in tables.items() for row in rows if row["key"]
        }
        self.seeds = sorted(set.intersection(*(set(values) for values in self._rows.values())))

    def __call__(self, table: str, key: str) -> np.ndarray:
        """The values of one row, (n,), in the order of `seeds`."""
        values = self._rows[table, key]
        return np.array([values[seed] for seed in self.seeds])


# Whether a claim holds, and the differences, by name, that decided it.
_Decision = tuple[bool, dict[str, Difference]]


class Claim(NamedTuple):
    """A claim of the paper, and the rule that decides whether it holds here."""

    claim: str  # what the paper says
    rule: str  # when it counts as held, in words
    tables: tuple[str, ...]  # names of the tables that the rule reads
    decide: Callable[[Measured], _Decision]  # the rule


def _all_exceed(differences: dict[str, Difference], threshold: float = 0.0) -> _Decision:
    return all(difference.exceeds(threshold) for difference in differences.values()), differences


def _rises_then_falls(table: str, prefix: str = "") -> Callable[[Measured], _Decision]:
    return lambda measured: _all_exceed(
        {
            f"best layer - {end}": Difference.of(0 - measured(table, f"{prefix}{end}-minus-best"))
            for end in ("first", "last")
        }
    )


def _loss_goes_with_probe(scale: str) -> Callable[[Measured], _Decision]:
    def decide(measured: Measured) -> _Decision:
        correlations = []
        for size in figure3_loss_and_probe.SIZES:
            points = [
                [measured("figure3", f"{size}-{step}-{what}") for step in figure3_loss_and_probe.steps(scale)]
                for what in ("nats", "probe")
            ]
            nats_ns, probe_ns = (np.stack(part, axis=1) for part in points)
            correlations.append([spearmanr(*pair).statistic for pair in zip(nats_ns, probe_ns, strict=True)])
        correlation = Difference.of(-np.mean(correlations, axis=0))
        return correlation.exceeds(), {"rank correlation of likelihood and probe": correlation}

    return decide


def _larger_probes_better(measured: Measured) -> _Decision:
    s, m, l = (measured("table2", f"{size}32") for size in "sml")  # noqa: E741
    return _all_exceed({"M - S": Difference.of(m - s), "L - M": Difference.of(l - m)})


def _gap(measured: Measured, table: str, what: str) -> np.ndarray:
    """How far the autoregressive model is above the BERT model in a table, for "probe" or "finetune"."""
    ar, bert = (measured(table, f"{scales.STANDS_FOR}-{what}-{objective}") for objective in ("ar", "bert"))
    return ar - bert


def _ar_probes_better(table: str) -> Callable[[Measured], _Decision]:
    return lambda measured: _all_exceed({"AR - BERT, probed": Difference.of(_gap(measured, table, "probe"))})


def _tuning_closes_the_gap(table: str) -> Callable[[Measured], _Decision]:
    def decide(measured: Measured) -> _Decision:
        probed, tuned = _gap(measured, table, "probe"), _gap(measured, table, "finetune")
        closed = Difference.of(probed - np.abs(tuned))
        gaps = {"gap probed": Difference.of(probed), "gap fine-tuned": Difference.of(tuned)}
        return closed.exceeds(), gaps | {"closed by": closed}

    return decide


def _joint_is_no_worse(measured: Measured) -> _Decision:
    data = scales.STANDS_FOR
    difference = Difference.of(measured("table3", data) - measured("table3", f"{data}-class-only"))
    return difference.mean + difference.error >= 0, {"joint - class-only": difference}


def _pretraining_helps(measured: Measured) -> _Decision:
    difference = Difference.of(measured("table3", scales.STANDS_FOR) - measured("table3", "scratch"))
    return _all_exceed({"fine-tuned - from scratch": difference})


def _voting_helps(measured: Measured) -> _Decision:
    gains = {}
    for what, said in (("probe", "probed"), ("finetune", "fine-tuned")):
        key = f"{scales.STANDS_FOR}-{what}-bert"
        gains[f"vote - mean over masks, {said}"] = Difference.of(
            measured("figure4", f"{key}-vote") - measured("figure4", key)
        )
    return _all_exceed(gains)


def _few_labels_beat_pixels(measured: Measured) -> _Decision:
    return _all_exceed(
        {
            f"features - raw pixels, {labels} labels a class": Difference.of(
                measured("table4", f"{labels}") - measured("table4", f"{labels}-pixels")
            )
            for labels in (4, 25)
        },
        FAR,
    )


def _mask_rates(measured: Measured) -> _Decision:
    rates = {rate: measured("ablations", f"mask{rate}") for rate in (15, 20, 35)}
    alike = Difference.of(rates[15] - rates[20])
    worse = Difference.of((rates[15] + rates[20]) / 2 - rates[35])
    return alike.includes_zero(2) and worse.exceeds(), {"15 % - 20 %": alike, "mean of 15 and 20 % - 35 %": worse}


MORE = "more than its standard error"


def _first(table: str, prefix: str = "", of: str = "") -> Claim:
    rule = f"the layer that held-out images choose lies above the first and above the last by {MORE}"
    return Claim(f"Accuracy by layer rises, then falls{of}", rule, (table,), _rises_then_falls(table, prefix))


def _fourth(table: str) -> Claim:
    return Claim("AR probes beat BERT's", f"the difference is {MORE}", (table,), _ar_probes_better(table))


def _fifth(table: str) -> Claim:
    return Claim(
        "Fine-tuning closes the gap between AR and BERT",
        f"the gap of the probes is wider than the fine-tuned one, either way round, by {MORE}",
        (table,),
        _tuning_closes_the_gap(table),
    )


def claims(tables: str, scale: str) -> list[Claim]:
    """The claims that some tables decide.

    Args:
      tables: "all" for the ten claims, in the order of experiments/README.md; or the name of one table, of which those
        beyond the paper try some of these claims again.
      scale: "paper" or "miniature".
    """
    if tables == "in_color":
        return [
            _first(tables, f"{data}-{layers}-", f", on {name}, with {layers} layers")
            for data, name in in_color.DATA.items()
            for layers in in_color.DEPTHS
        ]
    if tables == "longer_bert":
        return [_fourth(tables), _fifth(tables)]
    if tables != "all":
        return []
    return [
        _first("figure2"),
        Claim(
            "Lower held-out loss goes with better probes over training",
            f"Spearman's correlation over a run's checkpoints, averaged over sizes, is on that side by {MORE}",
            ("figure3",),
            _loss_goes_with_probe(scale),
        ),
        Claim("Larger models probe better", f"M over S and L over M by {MORE}", ("table2",), _larger_probes_better),
        _fourth("figure4"),
        _fifth("figure4"),
        Claim(
            "The joint objective is at least as good as class-only",
            "it is not worse by more than the standard error",
            ("table3",),
            _joint_is_no_worse,
        ),
        Claim("Pretraining beats training from scratch", f"the difference is {MORE}", ("table3",), _pretraining_helps),
        Claim(
            "Mask voting helps BERT",
            f"the vote lies above the mean over the masks by {MORE}, probed and fine-tuned",
            ("figure4",),
            _voting_helps,
        ),
        Claim(
            "Few-label probes beat raw pixels by far",
            f"with 4 and with 25 labels a class by {FAR:g} points and {MORE}",
            ("table4",),
            _few_labels_beat_pixels,
        ),
        Claim(
            "Mask rates of 15 and 20 % are alike, 35 % is worse",
            f"15 and 20 % differ by less than two standard errors, and their mean lies above 35 % by {MORE}",
            ("ablations",),
            _mask_rates,
        ),
    ]


def decide(
    wanted: Sequence[Claim], tables: Mapping[str, Sequence[dict[str, Any]]], command: str
) -> list[dict[str, Any]]:
    """Decides some claims.

    Args:
      wanted: from `claims`.
      tables: the measured rows of the tables that they read, by name.
      command: the command line that made the tables, for the results.

    Returns:
      The entries of claims.json.

    Raises:
      InputError: fewer than two seeds have a value in every row that a claim needs.
    """
    decided = []
    for claim in wanted:
        measured = Measured({table: tables[table] for table in claim.tables})
        if len(measured.seeds) < 2:
            raise InputError(f"{', '.join(claim.tables)} has fewer than two seeds that every row was measured with")
        held, differences = claim.decide(measured)
        decided.append(
            {
                "claim": claim.claim,
                "held": bool(held),
                "rule": claim.rule,
                "figures": {
                    name: {"mean": difference.mean, "standard_error": difference.error, "values": difference.values}
                    for name, difference in differences.items()
                },
                "seeds": measured.seeds,
                "command": command,
            }
        )
    return decided


def sentence(number: int, decided: dict[str, Any]) -> str:
    """Formats a decided claim as one line of Markdown."""
    figures = "; ".join(
        f"{name}: {figure['mean']:+.2f} ± {figure['standard_error']:.2f}" for name, figure in decided["figures"].items()
    )
    return f"{number}. **{'held' if decided['held'] else 'not held'}**: {decided['claim']} ({figures})"


def summary(decided: Sequence[dict[str, Any]]) -> str:
    """Formats all decided claims as Markdown, one line each."""
    return "\n".join(itertools.starmap(sentence, enumerate(decided, start=1))) + "\n"
