"""Runs whose workdir is in a bucket: interrupted, locked, and with a server that fails now and then."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.__main__ import main
from igpt_jax.errors import InputError
from igpt_jax.storage import as_path, files
from igpt_jax.train import bucket_lock
from igpt_jax.train.workdir_lock import lock_workdir
from tests.bucket import failing
from tests.train.runs import assert_equal, batches_cut_off_at_5, checkpoints_in, cut_off, evaluate, train

ROOT = pathlib.Path(__file__).parents[2]
SMALL = [
    f"--config={ROOT / 'experiments' / 'digits.py'}",
    "--config.steps=12",
    "--config.log_every=2",
    "--config.checkpoint_every=4",
    "--config.evaluate.probe.augmented_epochs=0",
    "--config.evaluate.probe.l2=(0.1,)",
    "--config.model.layers=1",
    "--config.model.width=16",
    "--config.model.heads=2",
]


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


@pytest.mark.parametrize(
    "options", [{"evaluate": cut_off(evaluate, at=1)}, {"batches_from": batches_cut_off_at_5}], ids=["in", "between"]
)
def test_a_run_that_was_cut_off_equals_an_undisturbed_one(options, place, undisturbed):
    workdir = as_path(place)
    with pytest.raises(KeyboardInterrupt):
        train(workdir, **options)
    assert_equal(train(workdir), workdir, undisturbed)
    assert checkpoints_in(workdir)[-1] == "6"


# The reads that are under way when one fails report to an event loop that orbax has closed by then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_put_aside(place, undisturbed):
    workdir = as_path(place)
    train(workdir)
    for name in files().find(f"{place}/checkpoints/6/params/d"):
        files().pipe_file(name, b"\0" * 100)
    assert_equal(train(workdir), workdir, undisturbed)
    assert "6.damaged" in checkpoints_in(workdir)


def test_a_second_run_is_refused_while_the_first_one_writes(place, monkeypatch):
    monkeypatch.setattr(bucket_lock, "BEAT", 0.2)
    with (
        lock_workdir(as_path(place)),
        pytest.raises(InputError, match=rf"{place} is in use by process {os.getpid()} on \S+; wait for it"),
        lock_workdir(as_path(place)),
    ):
        pass
    with lock_workdir(as_path(place)):  # and it is free again
        pass
    assert not (as_path(place) / "lock").exists()


def test_the_lock_of_a_killed_process_of_this_machine_is_taken_at_once(place, server):
    program = f"""if True:
        import os, signal
        from igpt_jax.storage import as_path
        from igpt_jax.train.workdir_lock import lock_workdir
        with lock_workdir(as_path({place!r})):
            os.kill(os.getpid(), signal.SIGKILL)"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == -9
    assert (as_path(place) / "lock").exists()
    with lock_workdir(as_path(place)):
        assert json.loads((as_path(place) / "lock").read_text())["process"] == os.getpid()


def test_the_lock_of_a_lost_machine_is_taken_when_it_is_silent_for_long(place, monkeypatch):
    monkeypatch.setattr(bucket_lock, "BEAT", 0.2)
    monkeypatch.setattr(bucket_lock, "PATIENCE", 1.0)
    (as_path(place) / "lock").write_text(json.dumps({"host": "elsewhere", "process": 7}))
    with lock_workdir(as_path(place)):
        assert json.loads((as_path(place) / "lock").read_text())["process"] == os.getpid()


def test_an_answer_that_is_lost_on_the_way_does_not_cost_the_lock(place):
    held = bucket_lock._Lock(as_path(place) / "lock")
    held.take()
    before = held._generation
    assert held._write(before)
    assert held._write(before)  # as where the client repeats a request that had succeeded
    assert held._generation > before
    other = bucket_lock._Lock(as_path(place) / "lock")
    assert not other._write(before)
    held.release()


def test_a_run_whose_lock_was_taken_ends(place, server):
    program = f"""if True:
        import time
        from igpt_jax.storage import as_path
        from igpt_jax.train import bucket_lock
        from igpt_jax.train.workdir_lock import lock_workdir
        bucket_lock.BEAT = 0.2
        with lock_workdir(as_path({place!r})):
            (as_path({place!r}) / "lock").write_text('{{"host": "elsewhere", "process": 7}}')
            time.sleep(60)"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert ended.returncode == 2
    assert f"{place}/lock was taken by process 7 on elsewhere; this run ends" in ended.stderr


@pytest.fixture(scope="module")
def trained(server):
    """A workdir in a bucket, and the files in it when the run has ended."""
    place = "gs://bucket/trained/run"
    assert igpt("train", f"--workdir={place}", *SMALL) == 0
    return place, files().find(place)


@pytest.fixture(scope="module")
def workdir(trained):
    return trained[0]


def test_a_run_leaves_in_the_bucket_what_it_leaves_on_disk(trained, tmp_path):
    workdir, left = trained
    assert igpt("train", f"--workdir={tmp_path / 'run'}", *SMALL) == 0

    def names(found):
        return {re.sub(r"tfevents.*", "tfevents", name) for name in found if "/checkpoints/" not in name}

    there = names(name.removeprefix("bucket/trained") for name in left)
    here = names(f"/{file.relative_to(tmp_path)}" for file in (tmp_path / "run").rglob("*") if file.is_file())
    assert there == here - {"/run/lock", "/run/palette.nearest.npy"}
    ours, its = (json.loads((place / "evaluation.json").read_text()) for place in (tmp_path / "run", as_path(workdir)))
    assert ours["nats_per_token"] == its["nats_per_token"]
    local, remote = ig.load(tmp_path / "run"), ig.load(workdir)
    np.testing.assert_array_equal(local.params["token_head"], remote.params["token_head"])
    assert local.palette == remote.palette


def test_every_command_takes_the_bucket(workdir, tmp_path, capsys):
    assert igpt("evaluate", f"--workdir={workdir}", "--report=False") == 0
    assert igpt("sample", f"--workdir={workdir}", "--n=2") == 0
    assert igpt("complete", f"--workdir={workdir}", "--n=1", f"--images={workdir}/samples/00001.png") == 0
    assert igpt("score", f"--workdir={workdir}", f"--images={workdir}/samples", "--out=gs://bucket/trained/scores") == 0
    for to in ("huggingface", "openai", "igpt"):
        output = f"gs://bucket/trained/{to}"
        assert igpt("convert", f"--input={workdir}", f"--output={output}", f"--to={to}") == 0
        assert igpt("convert", f"--input={output}", f"--output={tmp_path / to}", "--to=huggingface") == 0
        assert igpt("convert", f"--input={output}", f"--output={output}", f"--to={to}") == 2
        assert "exists; name a new directory" in capsys.readouterr().err
    written = [(tmp_path / to / "model.safetensors").read_bytes() for to in ("huggingface", "openai", "igpt")]
    assert written[0] == written[1] == written[2]
    found = set(files().find("gs://bucket/trained"))
    for name in ("run/samples/grid.png", "run/completions/sheet.png", "scores/surprise.png"):
        assert f"bucket/trained/{name}" in found


def test_a_run_begins_from_weights_in_a_bucket_and_goes_on_from_a_checkpoint_there(workdir, tmp_path):
    assert igpt("train", f"--workdir={tmp_path / 'new'}", *SMALL, f"--config.initialize_from={workdir}") == 0
    constant = ["--config.optimizer.schedule=constant", "--config.optimizer.warmup_epochs=0", "--report=False"]
    assert igpt("train", "--workdir=gs://bucket/trained/constant", *SMALL, *constant) == 0
    onward = ["--config.steps=16", "--config.continue_from=gs://bucket/trained/constant/checkpoints/12"]
    assert igpt("train", "--workdir=gs://bucket/trained/on", *SMALL, *constant, *onward) == 0


def run_in(environment, workdir):
    command = [sys.executable, "-m", "igpt_jax", "train", f"--workdir={workdir}", *SMALL, "--report=False"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300)


def test_a_server_that_fails_now_and_then_changes_nothing(workdir, server):
    calls = []

    def fails(method, path):
        calls.append(path)
        return len(calls) % 50 == 0

    with failing(server, fails) as environment:
        ended = run_in(environment, "gs://bucket/flaky")
    assert ended.returncode == 0, ended.stderr
    assert len(calls) > 100
    flaky, steady = (
        json.loads((as_path(place) / "evaluation.json").read_text()) for place in ("gs://bucket/flaky", workdir)
    )
    assert flaky["nats_per_token"] == steady["nats_per_token"]


@pytest.mark.slow
def test_a_server_that_fails_always_is_named_in_one_line(server):
    with failing(server, lambda method, path: True) as environment:
        ended = run_in(environment, "gs://bucket/never")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "gs://bucket cannot be used: Cloud Storage does not answer" in ended.stderr
