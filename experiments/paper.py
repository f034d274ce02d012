"""The numbers that the paper prints, from paper_tables.json."""

import functools
import json
import pathlib
from typing import Any

PATH = pathlib.Path(__file__).with_name("paper_tables.json")


@functools.cache
def _entries() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(PATH.read_text()))


def entries(table: str) -> list[dict[str, Any]]:
    """The rows of one table or passage, as the report of June 2020 prints them and in its order.

    Args:
      table: such as "Table 1" or "Section 4.4 text".

    Returns:
      Dicts of "dataset", "method", "setting", "metric" and "value"; some also have "std", the standard deviation over
      subsets of the labels, and "note".
    """
    return [entry for entry in _entries() if entry["table"] == table and entry["version"] in ("report", "readme")]


def learning_rates() -> dict[tuple[str, int, str], float]:
    """The learning rates that Table 5 prints, by (size, resolution, objective)."""
    names = {"auto-regressive": "ar", "BERT": "bert"}
    rates = {}
    for entry in entries("Table 5"):
        objective, resolution = entry["setting"].split("; IR ")
        size = entry["method"].removeprefix("iGPT-").lower()
        rates[size, int(resolution.split("^")[0]), names[objective]] = entry["value"]
    return rates
