"""Kills a training run at random moments, over and over, and compares what it leaves with an undisturbed run.

    python -m tests.soak --kills=100
    python -m tests.soak --kills=20 --bucket

The run is that of experiments/digits.py on a tiny model, with checkpoints every few steps, evaluations, and the report
at its end.  Every life is a process of its own that SIGKILL ends somewhere between its start and the end of the run;
the next one gets the same command.  A run that reaches its end is compared, and a new one begins, until the kills are
spent.  With --bucket the workdirs are in a bucket of a server on this machine, and are compared with one on disk."""

import argparse
import collections
import contextlib
import hashlib
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import sys
import tempfile
import time

import numpy as np

from igpt_jax.storage import as_path, in_bucket
from tests.bucket import served

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 240
CONFIG = {
    "steps": STEPS,
    "log_every": 5,
    "checkpoint_every": 6,
    "keep_every": 108,
    "keep_best": "validation/nats_per_token",
    "evaluate.split": "validation",
    "evaluate.every": 90,
    "evaluate.probe.augmented_epochs": 0,
    "evaluate.probe.l2": (0.1,),
    "optimizer.warmup_epochs": 0.2,
    "data.batch_size": 32,
    "data.fold_validation": False,
    "model.layers": 1,
    "model.width": 16,
    "model.heads": 2,
}
LIFE = 0.7  # of an undisturbed run's time, at most: enough to start, go on and end, too short for a whole run
SPEED = re.compile(r"second|mfu|input_wait")  # what no two runs share
# Files that each life adds to, or may leave out.
CACHED = re.compile(r"tfevents|\.nearest\.npy$|^lock$")


def soak(directory: pathlib.Path, kills: int, seed: int, place: pathlib.Path | None = None) -> dict[str, int]:
    """Spends the kills on runs at the place, which is the directory if it is not given.

    Returns how often each moment was hit; raises AssertionError where a run differs.
    """
    place = place or directory
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "JAX_COMPILATION_CACHE_DIR": str(directory / "cache"),  # the same executables, without the minutes
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    # Each life is forked from a process that has imported everything and started nothing.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["igpt_jax.commands.train", "clu.metric_writers"])
    for name in ("warm", "undisturbed"):  # the first one compiles; the second tells how long a life is
        start = time.monotonic()
        where = place if name == "warm" else directory
        assert _live(processes, where / name, directory, None) == 0, (directory / f"{name}.log").read_text()[-2000:]
        length = time.monotonic() - start
    expected = _result(directory / "undisturbed")
    _compare(expected, _result(place / "warm"))
    draw, moments, runs = random.Random(seed), collections.Counter(), 0
    while sum(moments.values()) < kills:
        workdir = place / f"run{runs}"
        while True:
            before = _written(workdir)
            seconds = draw.uniform(0, LIFE * length) if sum(moments.values()) < kills else None
            if _live(processes, workdir, directory, seconds) == 0:
                break
            moment = _moment(workdir, before)
            moments[moment] += 1
            print(f"kill {sum(moments.values())} of {kills}, run {runs}: {moment}", flush=True)
        _compare(expected, _result(workdir))
        runs += 1
        print(f"run {runs} equals the undisturbed one", flush=True)
    return dict(moments) | {"runs compared": runs, "undisturbed seconds": round(length)}


def _live(processes, workdir, directory, seconds):
    """One process with the run's command; killed after the seconds.  Returns the exit status: -9 where killed."""
    log = directory / f"{workdir.name}.log"
    process = processes.Process(target=_train, args=(str(workdir), log))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
    assert process.exitcode in (0, -9), log.read_text()[-2000:]
    return process.exitcode


def _train(workdir, log):
    from igpt_jax.__main__ import main

    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    flags = [f"--config.{name}={value}" for name, value in CONFIG.items()]
    sys.exit(main(["igpt_jax", "train", f"--config={ROOT}/experiments/digits.py", f"--workdir={workdir}", *flags]))


def _written(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes() if path.exists() else None


def _moment(workdir, written_before):
    """What the kill interrupted, from what it left."""
    checkpoints = workdir / "checkpoints"
    for checkpoint in checkpoints.iterdir() if checkpoints.exists() else ():
        if checkpoint.name.endswith(".orbax-checkpoint-tmp"):
            return "while a checkpoint was written"
        if in_bucket(checkpoint) and not (checkpoint / "commit_success.txt").exists():
            return "while a checkpoint was written"
    lines = (workdir / "metrics.jsonl").read_text().splitlines() if _written(workdir) else []
    last = json.loads(lines[-1]) if lines and lines[-1].endswith("}") else {"step": 0}
    if last["step"] == STEPS:
        return "after the last step"
    if _written(workdir) == written_before:
        return "before its first step"
    if last["step"] % CONFIG["evaluate.every"] == 0 and "learning_rate" in last:
        return "in an evaluation"
    return "between two checkpoints"


def _result(workdir):
    """All that a run leaves, by name, without the speed: what two runs of the same command must share bit for bit."""
    import jax
    import orbax.checkpoint as ocp

    evaluation = json.loads((workdir / "evaluation.json").read_text())
    metrics = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    found = {
        "files": sorted(path.name for path in workdir.iterdir() if not CACHED.search(path.name)),
        "checkpoints": sorted(path.name for path in (workdir / "checkpoints").iterdir()),
        "metrics": [{k: x for k, x in line.items() if not SPEED.search(k)} for line in metrics],
        "evaluation": {k: x for k, x in evaluation.items() if not SPEED.search(k)},
    }
    for path in sorted((workdir / "report").iterdir()):
        found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    with contextlib.closing(ocp.Checkpointer(ocp.PyTreeCheckpointHandler())) as reader:
        for step, item in itertools.product(found["checkpoints"], ("params", "optimizer")):
            for keys, leaf in jax.tree.leaves_with_path(reader.restore(workdir / "checkpoints" / step / item)):
                found[f"{step}/{item}{jax.tree_util.keystr(keys)}"] = (
                    leaf.dtype,
                    leaf.shape,
                    np.asarray(leaf).tobytes(),
                )
    return found


def _compare(expected, found):
    assert expected.keys() == found.keys(), sorted(expected.keys() ^ found.keys())
    for name, value in expected.items():
        assert value == found[name], f"{name} differs: {str(value)[:500]} and {str(found[name])[:500]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bucket", action="store_true", help="work in a bucket")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory, place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory())), None
        if options.bucket:
            os.environ |= stack.enter_context(served("bucket"))
            place = as_path("gs://bucket")
        for name, count in soak(directory, options.kills, options.seed, place).items():
            print(f"{count:>6}  {name}")


if __name__ == "__main__":
    main()
