"""Kills a training run at random moments, over and over, and compares what it leaves with an undisturbed run.

    python -m tests.soak --kills=100

The run is that of experiments/digits.py on a tiny model, with checkpoints every few steps, evaluations, and the report
at its end.  Every life is a process of its own that SIGKILL ends somewhere between its start and the end of the run;
the next one gets the same command.  A run that reaches its end is compared, and a new one begins, until the kills are
spent."""

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
CACHED = re.compile(r"tfevents|\.nearest\.npy$")  # files that each life adds to, or may leave out


def soak(directory: pathlib.Path, kills: int, seed: int) -> dict[str, int]:
    """Spends the kills.  Returns how often each moment was hit; raises AssertionError where a run differs."""
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
        assert _live(processes, directory / name, None) == 0, (directory / f"{name}.log").read_text()[-2000:]
        length = time.monotonic() - start
    expected = _result(directory / "undisturbed")
    _compare(expected, _result(directory / "warm"))
    draw, moments, runs = random.Random(seed), collections.Counter(), 0
    while sum(moments.values()) < kills:
        workdir = directory / f"run{runs}"
        while True:
            before = _written(workdir)
            if (
                _live(processes, workdir, draw.uniform(0, LIFE * length) if sum(moments.values()) < kills else None)
                == 0
            ):
                break
            moment = _moment(workdir, before)
            moments[moment] += 1
            print(f"kill {sum(moments.values())} of {kills}, run {runs}: {moment}", flush=True)
        _compare(expected, _result(workdir))
        runs += 1
        print(f"run {runs} equals the undisturbed one", flush=True)
    return dict(moments) | {"runs compared": runs, "undisturbed seconds": round(length)}


def _live(processes, workdir, seconds):
    """One process with the run's command; killed after the seconds.  Returns the exit status: -9 where killed."""
    process = processes.Process(target=_train, args=(workdir,))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
    assert process.exitcode in (0, -9), pathlib.Path(f"{workdir}.log").read_text()[-2000:]
    return process.exitcode


def _train(workdir):
    from igpt_jax.__main__ import main

    log = os.open(f"{workdir}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    flags = [f"--config.{name}={value}" for name, value in CONFIG.items()]
    sys.exit(main(["igpt_jax", "train", f"--config={ROOT}/experiments/digits.py", f"--workdir={workdir}", *flags]))


def _written(workdir):
    path = workdir / "metrics.jsonl"
    return path.stat().st_mtime_ns if path.exists() else None


def _moment(workdir, written_before):
    """What the kill interrupted, from what it left."""
    if list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp")):
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for name, count in soak(pathlib.Path(directory), options.kills, options.seed).items():
            print(f"{count:>6}  {name}")


if __name__ == "__main__":
    main()
