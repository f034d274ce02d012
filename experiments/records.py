"""The file of measured runs, which outlives their workdirs.

A run that the file has is not made again, on whatever machine.  So an experiment whose workdir begins with the results
of another machine makes only what they lack.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from experiments.benchmark.measure import machine
from experiments.runs import Job, Result, finished, work_directory
from experiments.scheduler import Scheduler
from experiments.tables import write_json
from igpt_jax.progress import track


def recorded(
    path: pathlib.Path,
    jobs: Sequence[Job],
    scheduler: Scheduler,
    prepare: Callable[[], Callable[[Result], dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Makes the runs that the file lacks, measures them, and adds them to the file one by one.

    The file has one entry for each run, under the name of its workdir, which contains the seed.

    Args:
      path: of the file, which need not exist.
      jobs: the wanted runs.
      scheduler: makes them, with its one seed.
      prepare: returns the function that measures a finished run; called only if one is to be measured.

    Returns:
      What was measured of each job, with its "command", "wall_seconds" and "machine".

    Raises:
      RunFailed: a run failed.
    """
    (seed,) = scheduler.seeds
    names = {job: work_directory(job, scheduler.directory, seed).name for job in jobs}
    records = json.loads(path.read_text()) if path.exists() else {}
    missing = [job for job in jobs if names[job] not in records]
    before = [job for job in missing if finished(job, scheduler.directory, seed)]
    for group in (before, [job for job in missing if job not in before]):
        if not group:
            continue
        scheduler.make_all(group)
        measure = prepare()
        for job in track(group, "measuring", len(group), "run"):
            note = finished(job, scheduler.directory, seed) or {}
            made = {"command": note["commands"][0], "wall_seconds": note["wall_seconds"], "machine": machine()}
            records[names[job]] = measure(Result(job, scheduler.directory, seed)) | made
            write_json(path, records)
    return [records[names[job]] for job in jobs]
