"""Our speeds beside torch's, from the results of all parts."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

from experiments.accelerator.results import Results


def comparisons(directory: pathlib.Path) -> str:
    """Formats one line for each kind of work that both sides have done; "" if there is none.

    Training compares images/s of the fastest of our cases without compiler options; sampling, tokens/s of whole images
    one by one with those of torch's first positions; learning, the seconds to torch's lowest held-out loss.
    """
    return "\n".join(_lines(*(Results.open(directory, part) for part in ("training", "drawing", "peers", "recipes"))))


def _lines(training: Results, drawing: Results, peers: Results, recipes: Results) -> Iterator[str]:
    for name in ("S", "L"):
        ours = training.figures(f"{name}, remat [a-z]+(, unrolled)?")
        for theirs in peers.figures(f"train {name}, torch.compile") if ours else ():
            fastest = max(ours, key=lambda its: its["images/s"])
            yield f"training {name}: {_ratio(fastest, theirs, 'images/s')} times torch's images/s"
    for case in peers.content["cases"]:
        if drawn := re.fullmatch(r"(draw \w, batch \d+), (.*)", case):
            for ours, theirs in zip(drawing.figures(f"{drawn[1]}, window 1"), peers.figures(case), strict=False):
                yield f"{drawn[1]}: {_ratio(ours, theirs, 'tokens/s')} times the tokens/s of torch, {drawn[2]}"
    if torch := peers.figures("learn S, torch.*"):
        best = min(torch, key=lambda its: its["held-out loss"])
        for learned in recipes.figures("learn S, modern recipe.*"):
            if learned["held-out loss"] <= best["held-out loss"]:
                yield f"learning S: torch needs {_ratio(best, learned, 'seconds')} times our seconds for its loss"


def _ratio(ours: dict[str, Any], theirs: dict[str, Any], name: str) -> str:
    return f"{ours[name] / theirs[name]:.2f}"
