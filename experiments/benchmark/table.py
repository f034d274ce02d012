"""Prints the results of several machines side by side, as a Markdown table.

    python -m experiments.benchmark.table experiments/results/benchmark/*.json

Each column is a machine, the last one the range over all machines.  A cell is how many times faster ours is than the
peer; where there is no peer, it is our speed or time.
"""

import json
import pathlib
import sys
from typing import Any

from experiments.benchmark.measure import DRAWN


def table(results: dict[str, dict[str, Any]]) -> str:
    """Formats the results of machines as a Markdown table.

    Args:
      results: by machine, the contents of its file.

    Returns:
      One row for each comparison, in the order of the first machine that has it.
    """
    cells: dict[tuple[str, str], dict[str, float]] = {}
    for machine, entries in results.items():
        for entry in (entry for name, entry in entries.items() if name not in DRAWN):
            for result in entry["results"]:
                compared = result["ratio"] is not None
                row = result["name"], f"times {result['peer_name']}" if compared else result["unit"]
                cells.setdefault(row, {})[machine] = result["ratio"] if compared else result["ours"]
    lines = [f"| | beside | {' | '.join(results)} | range |", "|---|---|" + "---|" * (len(results) + 1)]
    for (name, beside), values in cells.items():
        columns = [_number(values[machine]) if machine in values else "" for machine in results]
        span = dict.fromkeys(_number(value) for value in (min(values.values()), max(values.values())))
        lines.append(f"| {name} | {beside} | {' | '.join(columns)} | {' to '.join(span)} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main(paths: list[str]) -> int:
    """Prints the table of the files.  Returns the exit status: 0, or 2 without files."""
    if not paths:
        print("python -m experiments.benchmark.table: name the files of one or several machines", file=sys.stderr)
        return 2
    files = [pathlib.Path(path) for path in paths]
    print(table({file.stem: json.loads(file.read_text()) for file in files}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
