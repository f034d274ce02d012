"""Tables: the paper's rows, what our runs measured beside them, as JSON and as Markdown."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from experiments.runs import Job, Result, finished
from igpt_jax.files import atomic_write

NOT_IN_MINIATURE = "not in the miniature, whose one data set are the digits"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: a number of the paper, of ours, or both.

    Attributes:
      name, setting: whose number it is, and of what.
      paper: as the paper has it, converted to `unit`; a text where it prints no number.
      paper_std: the deviation that it gives.
      run, read: what measures it, and how it is read from the result; None where nobody runs it.
      key: by which claims and figures find it, one of a kind in its table.
      remark: what a reader must know, such as why there is no number.
    """

    name: str
    setting: str = ""
    paper: float | str | None = None
    paper_std: float | None = None
    unit: str = "%"
    run: Job | None = None
    read: Callable[[Result], float] | None = None
    key: str = ""
    remark: str = ""


def measure(row: Row, directory: pathlib.Path, seeds: Sequence[int]) -> dict:
    """The row with what the finished runs say: {"values": {seed: value}, "mean", "std", "best_layer", "steps"}."""
    found = {
        "name": row.name,
        "setting": row.setting,
        "key": row.key,
        "unit": row.unit,
        "paper": row.paper,
        "paper_std": row.paper_std,
        "remark": row.remark,
        "run": row.run and row.run.name,
        "values": {},
    }
    if row.run is None:
        return found
    done = {seed: note for seed in seeds if (note := finished(row.run, directory, seed))}
    results = [Result(row.run, directory, seed) for seed in done]
    values = [row.read(result) for result in results]
    found["values"] = dict(zip(done, values, strict=True))
    if values:
        found["mean"] = float(np.mean(values))
        found["std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        found["steps"] = [result.evaluation["step"] for result in results]  # of the model that is measured
        found["wall_seconds"] = [round(note["wall_seconds"]) for note in done.values()]
        found["commands"] = [command for note in done.values() for command in note["commands"]]
        probes = [result.evaluation.get("probe") for result in results]
        if all(probes):
            found["best_layer"] = [probe["best_layer"] for probe in probes]
        if row.run.rates:
            found["learning_rate"] = [note["rate"] for note in done.values()]
    return found


def markdown(title: str, rows: Sequence[dict]) -> str:
    """A table: ours beside the paper's, mean ± standard deviation over the seeds."""
    lines = [
        f"# {title}",
        "",
        "| | of | ours | paper | best layer | steps | seeds | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        remarks = [row["remark"], f"learning rate {_few(row['learning_rate'])}" if row.get("learning_rate") else ""]
        cells = [
            row["name"],
            row["setting"],
            _number(row.get("mean"), row.get("std"), row["unit"]),
            _number(row["paper"], row["paper_std"], row["unit"]),
            _few(row.get("best_layer")),
            _few(row.get("steps")),
            ", ".join(map(str, row["values"])),
            "; ".join(filter(None, remarks)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _number(value, deviation, unit):
    if value is None or isinstance(value, str):
        return value or ""
    digits = {"%": ".1f", "points": ".1f", "nats/token": ".4f"}.get(unit, "g")
    spread = f" ± {deviation:{digits}}" if deviation is not None and digits != "g" else ""
    return f"{value:{digits}}{spread}" + (f" {unit}" if unit else "")


def _few(values):
    if not values:
        return ""
    return str(values[0]) if len(set(values)) == 1 else ", ".join(map(str, values))


def write_json(path: pathlib.Path, value) -> None:
    """Writes JSON that a person can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
