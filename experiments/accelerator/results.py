"""One JSON file for each part: the device, the command, and the figures of every case that has run."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from igpt_jax.errors import InputError


@dataclasses.dataclass
class Results:
    """The results of a part so far.  Every method that changes them returns when the change is on disk."""

    path: pathlib.Path
    content: dict[str, Any]  # of the file

    @classmethod
    def open(cls, directory: pathlib.Path, part: str) -> "Results":
        """Reads DIR/PART.json; without the file, the results are empty."""
        path = directory / f"{part}.json"
        content = json.loads(path.read_text()) if path.exists() else {"part": part, "finished": False, "cases": {}}
        return cls(path, content)

    @property
    def finished(self) -> bool:
        """Whether every case has run and none has failed."""
        return self.content["finished"]

    def describe(self, device: dict[str, Any], command: str, rehearsal: bool) -> None:
        """Records the machine, the versions and the command that the figures belong to.

        Raises:
          InputError: there are figures already, of another device or of a rehearsal.
        """
        before = self.content.get("device", device)["device"], self.content.get("rehearsal", rehearsal)
        if self.content["cases"] and before != (device["device"], rehearsal):
            kind = "a rehearsal" if before[1] else "no rehearsal"
            raise InputError(f"{self.path} has figures of {before[0]}, of {kind}; give another --out")
        self._change(device=device, command=command, rehearsal=rehearsal)

    def has(self, case: str) -> bool:
        """Whether the case has figures; a case that failed has none."""
        return "figures" in self.content["cases"].get(case, {})

    def figures(self, pattern: str) -> list[dict[str, Any]]:
        """The figures of the cases whose whole names match a regular expression, without those that failed."""
        cases = self.content["cases"]
        return [cases[name]["figures"] for name in cases if re.fullmatch(pattern, name) and self.has(name)]

    def add(self, case: str, outcome: dict[str, Any], seconds: float) -> None:
        """Records the outcome of a case, {"figures": {...}} or {"error": text}, and how long it took."""
        self._change(cases=self.content["cases"] | {case: outcome | {"case_seconds": round(seconds, 1)}})

    def finish(self) -> None:
        """Marks the part as finished, if no case failed."""
        self._change(finished=all("figures" in outcome for outcome in self.content["cases"].values()))

    def _change(self, **values: Any) -> None:
        self.content |= values
        partial = self.path.with_suffix(".partial")
        with partial.open("w") as file:
            json.dump(self.content, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path)


def table(directory: pathlib.Path, parts: Sequence[str]) -> str:
    """Formats every case of every part that has begun, one line each."""
    lines = []
    for part in parts:
        if not (directory / f"{part}.json").exists():
            continue
        results = Results.open(directory, part)
        lines.append(f"{part}{'' if results.finished else ' (not finished)'}")
        for case, outcome in results.content["cases"].items():
            lines.append(f"  {line(case, outcome)}")
    return "\n".join(lines)


def line(case: str, outcome: dict[str, Any]) -> str:
    """Formats a case: its figures, without nested ones, or the last line of its error."""
    if "error" in outcome:
        text = f"failed: {outcome['error'].strip().splitlines()[-1][:150]}"
    else:
        figures = outcome["figures"].items()
        text = ", ".join(f"{name} {_number(value)}" for name, value in figures if not isinstance(value, dict | list))
    return f"{case:<42} {text}"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
