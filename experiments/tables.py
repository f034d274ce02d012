"""Tables of the paper's numbers beside our own, as JSON and as Markdown."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.runs import Job, Result, finished
from igpt_jax.files import atomic_write

NOT_IN_MINIATURE = "not in the miniature, whose one data set are the digits"


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table: a number of the paper, one of ours, or both.

    Attributes:
      name: the method, such as "iGPT-L".
      setting: what the number is of, such as "CIFAR-10, unsupervised on ImageNet".
      paper: the paper's number, converted to `unit`; a text if the paper describes the result without a number.
      paper_std: the standard deviation that the paper prints.
      unit: of both numbers.
      job: measures our number; None if the row has none.
      read: reads our number from the job's result.
      key: identifies the row to claims and figures; unique in its table.
      remark: what a reader must know, such as why there is no number.
    """

    name: str
    setting: str = ""
    paper: float | str | None = None
    paper_std: float | None = None
    unit: str = "%"
    job: Job | None = None
    read: Callable[[Result], float] | None = None
    key: str = ""
    remark: str = ""


def measure(row: Row, directory: pathlib.Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Reads a row's number from the finished jobs.

    Args:
      row: the row.
      directory: holds the workdirs of all jobs.
      seeds: those to read; seeds whose job has not finished are left out.

    Returns:
      The row as results.json has it: its fields, "values" {seed: value}, and if there are values also "mean", "std"
      (None for one seed), "steps", "wall_seconds", "commands" and, where they apply, "best_layer" and "learning_rate".
    """
    measured: dict[str, Any] = {
        "name": row.name,
        "setting": row.setting,
        "key": row.key,
        "unit": row.unit,
        "paper": row.paper,
        "paper_std": row.paper_std,
        "remark": row.remark,
        "run": row.job and row.job.name,
        "values": {},
    }
    if row.job is None or row.read is None:
        return measured
    done = {seed: note for seed in seeds if (note := finished(row.job, directory, seed))}
    results = [Result(row.job, directory, seed) for seed in done]
    values = [row.read(result) for result in results]
    measured["values"] = dict(zip(done, values, strict=True))
    if values:
        measured["mean"] = float(np.mean(values))
        measured["std"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        measured["steps"] = [result.evaluation["step"] for result in results]  # of the model that is measured
        measured["wall_seconds"] = [round(note["wall_seconds"]) for note in done.values()]
        measured["commands"] = [command for note in done.values() for command in note["commands"]]
        probes = [result.evaluation.get("probe") for result in results]
        if all(probes):
            measured["best_layer"] = [probe["best_layer"] for probe in probes]
        if row.job.rates:
            measured["learning_rate"] = [note["rate"] for note in done.values()]
    return measured


def markdown(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """Formats measured rows as a Markdown table: our mean ± standard deviation over the seeds beside the paper's."""
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


def _number(value: float | str | None, deviation: float | None, unit: str) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    digits = {"%": ".1f", "points": ".1f", "nats/token": ".4f"}.get(unit, "g")
    spread = f" ± {deviation:{digits}}" if deviation is not None and digits != "g" else ""
    return f"{value:{digits}}{spread}" + (f" {unit}" if unit else "")


def _few(values: Sequence[Any] | None) -> str:
    """Shows one value if all are equal, and otherwise every value."""
    if not values:
        return ""
    return str(values[0]) if len(set(values)) == 1 else ", ".join(map(str, values))


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes indented JSON atomically, and makes the directory if necessary."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        partial.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
