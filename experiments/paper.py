"""The paper's printed numbers, from paper_tables.json."""

import functools
import json
import pathlib

PATH = pathlib.Path(__file__).with_name("paper_tables.json")


@functools.cache
def _entries():
    return tuple(json.loads(PATH.read_text()))


def entries(table: str) -> list[dict]:
    """The rows of one table or passage as the June 2020 report prints them, in its order.

    Each has "dataset", "method", "setting", "metric" and "value"; some "std", the deviation over subsets, and "note".
    """
    return [entry for entry in _entries() if entry["table"] == table and entry["version"] in ("report", "readme")]


def learning_rates() -> dict[tuple[str, int, str], float]:
    """(size, resolution, objective) -> the learning rate that Table 5 prints."""
    names = {"auto-regressive": "ar", "BERT": "bert"}
    rates = {}
    for entry in entries("Table 5"):
        objective, resolution = entry["setting"].split("; IR ")
        size = entry["method"].removeprefix("iGPT-").lower()
        rates[size, int(resolution.split("^")[0]), names[objective]] = entry["value"]
    return rates
