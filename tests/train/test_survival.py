"""What a run loses, whatever interrupts it: nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import EvaluateConfig, OptimizerConfig
from igpt_jax.errors import Preempted
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.claim import locked, read_claim, write_claim
from igpt_jax.train.metrics import read_metrics
from igpt_jax.train.preemption import Preemption
from igpt_jax.train.replay import replay
from igpt_jax.train.stall import announcing_stalls
from tests.train.runs import CONFIG, PALETTE, batches_from, checkpoints_in, evaluate, metrics_of, train, with_options


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed")
    state = train(workdir)
    return jax.tree.map(np.asarray, state), metrics_of(workdir)


def assert_equal(state, workdir, undisturbed):
    jax.tree.map(np.testing.assert_array_equal, state, undisturbed[0])
    assert metrics_of(workdir) == undisturbed[1]


def cut_off(function, at):
    """The function, or iterator, that is interrupted at its call of this number."""
    calls = 0

    def cut(argument):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return function(argument)

    return cut


def test_an_evaluation_cut_off_is_made_up_for_and_stands_in_the_metrics_once(tmp_path, undisturbed):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, evaluate=cut_off(evaluate, at=1))
    assert checkpoints_in(tmp_path) == ["2", "3"]
    assert_equal(train(tmp_path), tmp_path, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["step", "evaluation"])
def test_a_signal_saves_the_step_and_the_run_goes_on_from_there(where, number, tmp_path, undisturbed):
    def signalling_batches(step):
        for batch in batches_from(step):
            if where == "step" and batch["index"][0] == 8 * 5:  # taken on the way from step 4 to step 5
                os.kill(os.getpid(), number)
            yield batch

    def signalling_evaluation(params):
        if where == "evaluation":  # the checkpoint is being written meanwhile
            os.kill(os.getpid(), number)
            time.sleep(60)
        return evaluate(params)

    with Preemption() as preemption, pytest.raises(Preempted, match=f"stopped by {number.name}"):
        train(tmp_path, batches_from=signalling_batches, evaluate=signalling_evaluation, preemption=preemption)
    assert checkpoints_in(tmp_path)[-1] == ("4" if where == "step" else "3")
    assert_equal(train(tmp_path), tmp_path, undisturbed)


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

    for devices, step in ((1, 2), (8, 4)):
        with pytest.raises(Preempted):
            train(tmp_path, devices, preemption=StopsAfter(step))
    state = train(tmp_path, devices=2)
    assert len(jax.tree.leaves(state)[0].sharding.device_set) == 2
    for line, expected in zip(metrics_of(tmp_path), undisturbed[1], strict=True):
        assert line == pytest.approx(expected, rel=2e-4)


def test_the_best_and_every_so_many_checkpoints_stay_beside_the_newest(tmp_path):
    scores = iter([3.0, 1.0, 2.0, 4.0, 5.0, 6.0])
    config = with_options(
        evaluate=EvaluateConfig(every=1, split="validation"),
        keep_checkpoints=1,
        keep_every=4,
        keep_best="validation/nats_per_token",
    )
    train(tmp_path, config=config, evaluate=lambda _: {"validation/nats_per_token": next(scores)})
    assert checkpoints_in(tmp_path) == ["2", "4", "6"]
    (_, loaded, _), (_, best, _) = ig.load(tmp_path), ig.load(tmp_path / "checkpoints" / "2")
    jax.tree.map(np.testing.assert_array_equal, loaded, best)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def largest_file(directory):
    return max((path for path in directory.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(tmp_path, undisturbed, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, evaluate=cut_off(evaluate, at=1))
    damage(largest_file(tmp_path / "checkpoints" / "3" / "params"))
    _, params, _ = ig.load(tmp_path)
    assert f"{tmp_path}/checkpoints/3 is damaged" in capsys.readouterr().err
    _, before, _ = ig.load(tmp_path / "checkpoints" / "2")
    jax.tree.map(np.testing.assert_array_equal, params, before)
    with pytest.raises(ig.InputError, match="checkpoints/3 is damaged"):
        ig.load(tmp_path / "checkpoints" / "3")
    assert_equal(train(tmp_path), tmp_path, undisturbed)
    assert checkpoints_in(tmp_path) == ["3", "3.damaged", "4", "6"]


def test_a_run_whose_every_checkpoint_is_damaged_does_not_start_over(tmp_path):
    train(tmp_path, config=with_options(keep_checkpoints=1))
    damage(tmp_path / "checkpoints" / "6" / "about" / "metadata")
    with pytest.raises(ig.InputError, match=r"all checkpoints in .* are damaged"):
        train(tmp_path)


def test_an_older_format_gives_its_parameters_and_a_newer_one_is_refused(tmp_path):
    state = train(tmp_path, config=with_options(keep_checkpoints=1))
    path = tmp_path / "checkpoints" / "6" / "about" / "metadata"
    about = json.loads(path.read_text())
    older = {name: about[name] for name in ("config", "palette", "palette_hash")} | {"format_version": 1}
    path.write_text(json.dumps(older))
    _, params, _ = ig.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
    with pytest.raises(ig.InputError, match=r"format version 1.* python -m igpt_jax convert"):
        train(tmp_path, config=with_options(steps=8))


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, undisturbed):
    program = f"""if True:
        import pathlib, resource, time
        import igpt_jax as ig
        from tests.train.runs import train

        def filling(params):  # stands for a full disk: from now on no file may grow beyond a kilobyte
            time.sleep(2)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
            return dict()

        try:
            train(pathlib.Path({str(tmp_path)!r}), evaluate=filling)
        except (ig.InputError, OSError) as error:
            print(error)"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "File too large" in ended.stdout, ended
    assert "3" in checkpoints_in(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, train(tmp_path), undisturbed[0])


def spiking_batches(step):
    for batch in batches_from(step):
        if batch["index"][0] == 8 * 3:  # of step 4
            batch["tokens"][5] = 99  # no such colour: NaN
        yield batch


def test_a_loss_that_is_not_finite_stops_the_run_and_a_replay_names_the_image(tmp_path, capsys):
    with pytest.raises(ig.InputError, match=r"no longer finite at step 4: .*--replay=4 .*skip_spikes=1"):
        train(tmp_path, batches_from=spiking_batches)
    evidence = json.loads((tmp_path / "nonfinite.json").read_text())
    assert evidence["step"] == 4
    assert evidence["index"] == list(range(24, 32))
    assert evidence["last_finite"]["step"] == 3
    assert np.isfinite(list(evidence["last_finite"].values())).all()
    before = checkpoints_in(tmp_path)
    mesh = make_mesh(CONFIG.parallel, jax.devices()[:1])
    capsys.readouterr()
    found = replay(CONFIG, tmp_path, 4, images_per_epoch=16, batches_from=spiking_batches, mesh=mesh)
    assert found["index"][~np.isfinite(found["nats_per_token"])] == [29]
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "from step 3 to 4"
    assert shown[2].startswith("image 29: ")
    assert checkpoints_in(tmp_path) == before


def test_replayed_images_average_to_the_loss_of_their_step(tmp_path, undisturbed):
    mesh = make_mesh(CONFIG.parallel, jax.devices()[:8])
    found = replay(CONFIG, tmp_path, 2, images_per_epoch=16, batches_from=batches_from, mesh=mesh)
    assert found["nats_per_token"].mean() == pytest.approx(undisturbed[1][1]["nats_per_token"], rel=1e-5)


def test_as_many_spikes_as_allowed_are_skipped_and_counted(tmp_path):
    config = with_options(optimizer=OptimizerConfig(learning_rate=1e-2, skip_spikes=1))
    state = train(tmp_path, config=config, batches_from=spiking_batches)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    lines = {line["step"]: line for line in metrics_of(tmp_path) if "skipped" in line}
    assert [lines[step]["skipped"] for step in range(1, 7)] == [0, 0, 0, 1, 1, 1]
    assert "nats_per_token" not in lines[4]
    before, after = (ig.load(tmp_path / "checkpoints" / step)[1] for step in "34")
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_two_runs_on_one_work_dir_are_refused_and_a_dead_one_holds_no_lock(tmp_path):
    program = f"""if True:
        import pathlib, time
        from igpt_jax.train.claim import locked
        with locked(pathlib.Path({str(tmp_path)!r})):
            print(flush=True)
            time.sleep(60)"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        owner.stdout.readline()
        with pytest.raises(ig.InputError, match=f"is in use by process {owner.pid} on "), locked(tmp_path):
            pass
        owner.kill()
    with locked(tmp_path):
        pass


def test_a_work_dir_keeps_its_config_and_notices_an_edit(tmp_path):
    write_claim(tmp_path, CONFIG, PALETTE)
    assert read_claim(tmp_path) == (CONFIG, PALETTE.hash)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"steps": 6', '"steps": 7'))
    with pytest.raises(ig.InputError, match=r"config.json is damaged or edited; delete it"):
        read_claim(tmp_path)


def test_a_palette_that_is_not_the_checkpoints_is_refused(tmp_path):
    train(tmp_path)
    other = ig.Palette(PALETTE.colors[::-1])
    with pytest.raises(ig.InputError, match=f"the palette has hash {other.hash}, but .* {PALETTE.hash}"):
        train(tmp_path, palette=other)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"step": 1, "x": 2.0}\n{"step": 2, "x"\n{"step": 3}\n', "line 2 of"),
        ('{"step": 1}\n[]\n', "line 2 of"),
        ('{"step": 1.5}\n', "line 1 of"),
        ('{"step": 1, "x": "2"}\n', "line 1 of"),
        ('{"step": 2}\n{"step": 1}\n', "not in order"),
    ],
)
def test_damaged_metrics_are_refused_by_line(text, message, tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text)
    with pytest.raises(ig.InputError, match=message):
        read_metrics(path)


def test_a_last_line_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "x": 2.5}\n{"step": 2, "x": 3.')
    assert read_metrics(path) == [{"step": 1, "x": 2.5}]


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
