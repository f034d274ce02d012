"""Runs that end when nothing gets better, and result in their best checkpoint."""

import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import EvaluateConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.best import best_step, has_stalled
from igpt_jax.train.state import init_params
from tests.train.runs import batches_from, checkpoints_in, metrics_of, train, with_options

NAME = "validation/accuracy"


def evaluations(*values):
    return [{"step": step, NAME: value} for step, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "stalled"),
    [
        ((), False),
        ((50,), False),
        ((50, 40), False),
        ((50, 40, 45), True),
        ((50, 40, 50), True),  # as good is not better
        ((50, 40, 51), False),
        ((50, 40, 51, 49, 50), True),
    ],
)
def test_a_run_has_stalled_after_two_evaluations_that_are_no_better(values, stalled):
    lines = [{"step": 0, "nats_per_token": 3.0}, *evaluations(*values)]
    assert has_stalled(lines, NAME, patience=2) == stalled


def test_the_best_step_is_the_earliest_of_equals_and_one_of_those_there():
    lines = evaluations(50, 60, 40, 60)
    assert best_step(lines, NAME, {1, 2, 3, 4}) == 2
    assert best_step(lines, NAME, {1, 3, 4}) == 4
    assert best_step(lines, NAME, {9}) is None
    assert best_step([{"step": 1, "validation/nats_per_token": 2.0}], NAME, {1}) is None
    losses = [{"step": step, "validation/nats_per_token": 5 - step % 3} for step in range(6)]
    assert best_step(losses, "validation/nats_per_token", range(6)) == 2


CONFIG = with_options(
    steps=12,
    evaluate=EvaluateConfig(every=2, split="validation"),
    keep_checkpoints=1,
    keep_best="validation/nats_per_token",
    stop_after=2,
)


class Evaluations:
    """Losses in the order in which parameters are first seen, and the same for the same ones; may be cut off."""

    def __init__(self):
        self.known, self.scores = {}, itertools.chain([3.0, 1.0, 2.0, 1.0], itertools.repeat(0.0))

    def __call__(self, params):
        key = np.asarray(params["sos"]).tobytes()
        if key not in self.known:
            self.known[key] = next(self.scores)
        return {"validation/nats_per_token": self.known[key]}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    workdir, evaluate = tmp_path_factory.mktemp("stopped"), Evaluations()
    return workdir, train(workdir, config=CONFIG, evaluate=evaluate), evaluate


def test_a_run_ends_when_nothing_gets_better_and_loads_at_its_best(stopped):
    workdir, state, _ = stopped
    assert int(state.step) == 8  # of 12: the best after 4, then two that are no better
    assert checkpoints_in(workdir) == ["4", "8"]
    loaded, best = ig.load(workdir)[1], ig.load(workdir / "checkpoints" / "4")[1]
    jax.tree.map(np.testing.assert_array_equal, loaded, best)
    again = train(workdir, config=CONFIG, batches_from=None, evaluate=None)  # there is nothing left to do
    jax.tree.map(np.testing.assert_array_equal, again, state)


@pytest.mark.parametrize("at", ["evaluation 4", "batch 7"])
def test_a_run_cut_off_ends_at_the_same_step(at, stopped, tmp_path):
    kind, number = at.split()
    calls = itertools.count(1)

    def cut_evaluate(params):
        if kind == "evaluation" and next(calls) == int(number):
            raise KeyboardInterrupt
        return stopped[2](params)

    def cut_batches(step):
        for place, batch in enumerate(batches_from(step), start=step + 1):
            if kind == "batch" and place == int(number):
                raise KeyboardInterrupt
            yield batch

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, config=CONFIG, evaluate=cut_evaluate, batches_from=cut_batches)
    state = train(tmp_path, config=CONFIG, evaluate=stopped[2])
    jax.tree.map(np.testing.assert_array_equal, state, stopped[1])
    assert metrics_of(tmp_path) == metrics_of(stopped[0])
    assert checkpoints_in(tmp_path) == checkpoints_in(stopped[0])


def test_more_patience_goes_on_where_a_run_has_stopped(stopped, tmp_path):
    shutil.copytree(stopped[0], tmp_path / "copy")
    patient = train(tmp_path / "copy", config=dataclasses.replace(CONFIG, stop_after=3), evaluate=stopped[2])
    assert int(patient.step) == 12


def test_the_last_step_of_a_run_that_keeps_its_best_may_be_the_best(tmp_path):
    config = dataclasses.replace(CONFIG, steps=3, stop_after=0)
    falling = itertools.count(9, -1)
    state = train(tmp_path, config=config, evaluate=lambda _: {"validation/nats_per_token": next(falling)})
    assert int(state.step) == 3
    assert [line["step"] for line in metrics_of(tmp_path) if "validation/nats_per_token" in line] == [2, 3]
    assert checkpoints_in(tmp_path) == ["3"]


def test_what_a_killed_run_had_no_time_to_remove_is_removed_at_the_end(tmp_path):
    config = with_options(steps=3, checkpoint_every=1, keep_checkpoints=3)
    train(tmp_path, config=config)
    assert checkpoints_in(tmp_path) == ["1", "2", "3"]
    train(tmp_path, config=dataclasses.replace(config, keep_checkpoints=1))
    assert checkpoints_in(tmp_path) == ["3"]


def test_a_run_starts_from_the_parameters_that_it_is_given_and_needs_them_once(tmp_path):
    config = with_options(steps=3, checkpoint_every=1)

    def given():
        mesh = make_mesh(config.parallel, jax.devices()[:1])
        return jax.tree.map(lambda x: x + 1, init_params(ig.ImageGPT(config.model), 0, mesh))

    def two_batches(step):
        yield from itertools.islice(batches_from(step), 2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, config=config, initial_params=given, batches_from=two_batches)
    state = train(tmp_path, config=config)
    assert int(state.step) == 3
    assert np.asarray(state.params["sos"]).mean() > 0.9


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
