"""tpu/tpu.sh, with a stand-in for gcloud that writes down how it is called."""

import os
import pathlib
import shutil
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
STAND_IN = """#!/usr/bin/env bash
line=$(printf '%s\\t' "$@" | tr '\\n' ' ')
echo "$line" >> "$CALLS"  # in one piece, since several calls run at a time
"""


@pytest.fixture
def tpu(tmp_path):
    """Runs the script; returns its exit status, what it says on stderr, and the calls of gcloud, sorted."""
    (tmp_path / "gcloud").write_text(STAND_IN)
    (tmp_path / "gcloud").chmod(0o755)
    calls = tmp_path / "calls"
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls)}
    environment |= {"TPU_NAME": "mine", "TPU_ZONE": "there", "WORKER": str(tmp_path / "worker")}
    (tmp_path / "worker").mkdir()

    def run(*arguments):
        calls.write_text("")
        ended = subprocess.run(
            [ROOT / "tpu" / "tpu.sh", *arguments], env=environment, capture_output=True, text=True, cwd=ROOT
        )
        made = sorted(line.strip("\t").split("\t") for line in calls.read_text().splitlines())
        return ended.returncode, ended.stderr, made

    return run


def test_one_slice_is_created_by_its_type(tpu):
    _, _, (call,) = tpu("create", "--type=v6e-16", "--spot")
    assert call[:4] == ["compute", "tpus", "tpu-vm", "create"]
    assert {"mine", "--version=v2-alpha-tpuv6e", "--accelerator-type=v6e-16", "--spot", "--zone=there"} <= set(call)


def test_several_slices_are_one_queued_resource(tpu):
    _, _, (call,) = tpu("create", "--type=v5litepod-16", "--queued", "--slices=2")
    assert call[:4] == ["compute", "tpus", "queued-resources", "create"]
    assert {"mine", "--node-count=2", "--node-prefix=mine"} <= set(call)
    status, error, calls = tpu("create", "--type=v5litepod-16", "--slices=2")
    assert (status, calls) == (2, [])
    assert "several slices are one queued resource; add --queued" in error


def test_a_training_starts_on_every_worker_of_every_slice(tpu):
    _, _, calls = tpu("launch", "--queued", "--slices=2", "--", "--config=a b.py", "--workdir=gs://bucket/run")
    assert [call[4] for call in calls] == ["mine-0", "mine-1"]
    for call in calls:
        assert "--worker=all" in call
        assert any("train --distributed=auto --config=a\\ b.py --workdir=gs://bucket/run" in part for part in call)


def test_the_checkout_reaches_every_slice(tpu):
    _, _, calls = tpu("setup", "--queued", "--slices=2")
    copied = [call for call in calls if call[3] == "scp"]
    installed = [call for call in calls if call[3] == "ssh"]
    assert [call[5] for call in copied] == ["mine-0:igpt_jax.tar.gz", "mine-1:igpt_jax.tar.gz"]
    assert [call[4] for call in installed] == ["mine-0", "mine-1"]


def test_launch_says_whether_the_training_runs_and_stop_ends_it(tpu, tmp_path):
    """The stand-in for gcloud also executes what a worker would."""
    with (tmp_path / "gcloud").open("a") as file:
        file.write('for part; do [[ $part != --command=* ]] || HOME=$WORKER bash -c "cd; ${part#*=}" || exit; done\n')
    launch = ("launch", "--", "--config=a.py")
    status, error, _ = tpu(*launch)
    assert (status, "run setup first" in error) == (1, True)

    python = tmp_path / "worker" / "igpt_jax" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho there is no a.py\nexit 2\n")
    python.chmod(0o755)
    status, error, _ = tpu(*launch)
    assert (status, "there is no a.py" in error) == (1, True)

    python.write_text("#!/bin/sh\nexec sleep 60\n")
    assert tpu(*launch)[0] == 0
    status, error, _ = tpu(*launch)
    assert (status, "still running" in error) == (1, True)
    assert tpu("stop")[0] == 0
    time.sleep(1)
    status, error, _ = tpu("stop")
    assert (status, "nothing is running" in error) == (1, True)


@pytest.mark.parametrize(("from_", "start"), [("gs://bucket/run", ["storage", "rsync"]), ("runs/a", ["compute"])])
def test_a_workdir_is_fetched_from_where_it_is(from_, start, tpu):
    _, _, (call,) = tpu("fetch", f"--from={from_}", "--to=runs/a")
    assert call[: len(start)] == start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["launch"], "train what?"),
        (["create"], "of which type?"),
        (["create", "--bucket=b"], "unknown flag --bucket=b"),
        (["delete", "--slices=0"], "--slices=0 is no number of slices"),
        (["dance"], "unknown command dance"),
    ],
)
def test_what_cannot_work_is_refused_before_gcloud_is_called(arguments, message, tpu):
    status, error, calls = tpu(*arguments)
    assert (status, calls) == (2, [])
    assert message in error


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shellcheck_finds_nothing():
    assert subprocess.run(["shellcheck", ROOT / "tpu" / "tpu.sh"]).returncode == 0
