"""The file of measured runs."""

import json
import os

import pytest

from experiments.records import recorded
from experiments.runs import FINISHED, Job
from experiments.scheduler import RunFailed, Scheduler

JOBS = [Job(name, "train", "no_such_config.py", ()) for name in ("kept", "finished", "missing")]


def test_runs_of_the_file_are_not_made_finished_ones_are_only_measured_and_a_failure_loses_neither(tmp_path):
    path = tmp_path / "results" / "runs.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"kept-seed0": {"nats_per_token": 1.0, "machine": "another one"}}))
    workdir = tmp_path / "finished-seed0"
    workdir.mkdir()
    (workdir / FINISHED).write_text(json.dumps({"result": ".", "commands": ["train"], "wall_seconds": 5.0}))
    scheduler = Scheduler(tmp_path, (0,), "test", 1, os.environ | {"JAX_PLATFORMS": "cpu"})
    measured = []

    def prepare():
        return lambda result: measured.append(result.job.name) or {"nats_per_token": 2.0}

    with pytest.raises(RunFailed, match="missing-seed0 failed"):
        recorded(path, JOBS, scheduler, prepare)
    kept, finished = recorded(path, JOBS[:2], scheduler, prepare)
    assert measured == ["finished"]
    assert kept == {"nats_per_token": 1.0, "machine": "another one"}
    assert finished["nats_per_token"] == 2.0
    assert (finished["command"], finished["wall_seconds"]) == ("train", 5.0)
    assert "processor" in finished["machine"]
