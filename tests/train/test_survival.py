"""What a run loses, whatever interrupts it: nothing."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.errors import Preempted
from igpt_jax.train.preemption import Preemption
from igpt_jax.train.stall import announcing_stalls
from igpt_jax.train.workdir_lock import lock_workdir
from tests.train.runs import (
    assert_equal,
    batches_from,
    checkpoints_in,
    cut_off,
    evaluate,
    metrics_of,
    train,
    with_options,
)


def test_an_evaluation_cut_off_is_made_up_for_and_stands_in_the_metrics_once(tmp_path, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, evaluate=cut_off(evaluate, at=1))
    assert checkpoints_in(tmp_path) == ["2", "3"]
    assert_equal(train(tmp_path), tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("where", "number", "saved"),
    [
        ("step", signal.SIGTERM, "4"),
        ("step", signal.SIGINT, "4"),
        ("evaluation", signal.SIGTERM, "3"),
        ("checkpoint", signal.SIGTERM, "2"),
    ],
)
def test_a_signal_saves_the_step_and_the_run_goes_on_from_there(where, number, saved, tmp_path, undisturbed):
    def signalling_batches(step):
        for batch in batches_from(step):
            if where == "step" and batch["index"][0] == 8 * 5:  # taken on the way from step 4 to step 5
                os.kill(os.getpid(), number)
            if where == "checkpoint" and batch["index"][0] == 8 * 3:  # taken when that of step 2 has just been begun
                wait_for_writing(tmp_path / "checkpoints" / "2")
                os.kill(os.getpid(), number)
            yield batch

    def signalling_evaluation(params):
        if where == "evaluation":
            os.kill(os.getpid(), number)
            time.sleep(60)
        return evaluate(params)

    with Preemption() as preemption, pytest.raises(Preempted, match=f"stopped by {number.name}"):
        train(tmp_path, batches_from=signalling_batches, evaluate=signalling_evaluation, preemption=preemption)
    assert checkpoints_in(tmp_path)[-1] == saved
    assert_equal(train(tmp_path), tmp_path, undisturbed)


def wait_for_writing(checkpoint):
    """Returns when a part of the checkpoint is on disk, and, unless that was faster than this loop, not yet all."""
    deadline = time.monotonic() + 30
    while not list(checkpoint.parent.glob(f"{checkpoint.name}*")):
        assert time.monotonic() < deadline, "no checkpoint is being written"
        time.sleep(1e-4)


def test_a_second_signal_stops_at_once():
    program = """if True:
        import os, signal, time
        from igpt_jax.train.preemption import Preemption
        with Preemption() as preemption, preemption.held():
            os.kill(os.getpid(), signal.SIGTERM)
            print(preemption.reached(1), flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stdout == "True\n"
    assert ended.stderr == "SIGTERM: stopping; the next one stops at once\n"


def test_a_run_goes_on_on_any_mesh(tmp_path, undisturbed):
    class StopsAfter(Preemption):
        def __init__(self, step):
            super().__init__()
            self._stop = step

        def reached(self, step):
            if step == self._stop:
                self._signal = signal.SIGTERM
            return super().reached(step)

    for devices, slices, step in ((1, 1, 2), (8, 2, 3), (8, 1, 4), (4, 4, 5)):
        config = with_options(parallel=ParallelConfig(slices=slices))
        with pytest.raises(Preempted):
            train(tmp_path, devices, config, preemption=StopsAfter(step))
    state = train(tmp_path, devices=2)
    assert len(jax.tree.leaves(state)[0].sharding.device_set) == 2
    for line, expected in zip(metrics_of(tmp_path), undisturbed[1], strict=True):
        assert line == pytest.approx(expected, rel=2e-4)


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, undisturbed):
    program = f"""if True:
        import pathlib, resource, time
        from absl import logging
        from igpt_jax.errors import InputError, hide_late_writes
        from tests.train.runs import train

        def filling(params):  # stands for a full disk: from now on no file may grow beyond what metrics need
            time.sleep(2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
            return dict()

        logging.set_verbosity(logging.FATAL)  # as the command line does
        hide_late_writes()
        try:
            train(pathlib.Path({str(tmp_path)!r}), evaluate=filling)
        except InputError as error:
            print(error)
        time.sleep(1)  # for what comes late"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "File too large" in ended.stdout, ended
    assert "that of step 3 is whole; make room, and run the same command again" in ended.stdout
    assert "Traceback" not in ended.stderr
    assert "3" in checkpoints_in(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, train(tmp_path), undisturbed[0])


def test_two_runs_on_one_work_dir_are_refused_and_a_dead_one_holds_no_lock(tmp_path):
    program = f"""if True:
        import pathlib, time
        from igpt_jax.train.workdir_lock import lock_workdir
        with lock_workdir(pathlib.Path({str(tmp_path)!r})):
            print(flush=True)
            time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(ig.InputError, match=f"is in use by process {owner.pid} on "), lock_workdir(tmp_path):
            pass
        owner.kill()
    with lock_workdir(tmp_path):
        pass


def test_a_stalled_input_is_announced(capsys):
    def slow():
        yield 1
        time.sleep(0.5)
        yield 2

    with announcing_stalls(slow(), patience=0.1) as batches:
        assert next(batches) == 1
        assert not capsys.readouterr().err
        assert list(batches) == [2]
    assert capsys.readouterr().err.count("waiting for the next batch since") in (1, 2, 3)
