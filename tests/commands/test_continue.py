"""A run that goes on from a checkpoint of another: its measurements, and what is refused."""

import contextlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint.checkpoint_managers import LatestN

import igpt_jax as ig
from experiments import digits
from igpt_jax.__main__ import main
from igpt_jax.config import ParallelConfig, RunConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.checkpoint import Checkpoints
from igpt_jax.train.metrics import read_metrics
from igpt_jax.train.optimizer import make_optimizer
from igpt_jax.train.state import init_state

GRAYS = ig.Palette(np.repeat(np.linspace(-1, 1, 16)[:, None], 3, axis=1))
OPTIONS = {
    "steps": 8,
    "model.layers": 1,
    "model.width": 16,
    "optimizer.name": "muon",
    "optimizer.warmup_epochs": 0.05,  # 2 steps
    "optimizer.schedule": "wsd",
    "optimizer.decay_fraction": 0.5,
    "evaluate.probe.layers": (1,),
    "evaluate.probe.augmented_epochs": 0,
    "evaluate.probe.l2": (0.1,),
}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A run with the checkpoints of steps 2 and 4, in the stable phase."""
    directory = tmp_path_factory.mktemp("long")
    values = digits.get_config()
    values.update_from_flattened_dict(OPTIONS | {"steps": 100, "optimizer.schedule": "constant"})
    config = RunConfig.from_dict(values.to_dict())
    optimizer = make_optimizer(config.optimizer, lambda _: 0.0, config.model.dtype)
    state = init_state(ig.ImageGPT(config.model), optimizer, 0, make_mesh(ParallelConfig(), jax.devices()[:1]))
    with contextlib.closing(Checkpoints(directory, keep=LatestN(2))) as checkpoints:
        for step in (2, 4):
            checkpoints.save(state.replace(step=jnp.int32(step)), config, GRAYS)
    return directory


def train(workdir, *arguments):
    flags = [f"--config.{name}={value}" for name, value in OPTIONS.items()]
    command = ["igpt_jax", "train", f"--config={digits.__file__}", *flags, "--report=False", f"--workdir={workdir}"]
    return main([*command, *arguments])


def test_a_branch_decays_from_a_checkpoint_and_is_measured(long, tmp_path):
    assert train(tmp_path / "branch", f"--config.continue_from={long}/checkpoints/4", "--config.log_every=1") == 0
    assert json.loads((tmp_path / "branch" / "evaluation.json").read_text())["step"] == 8
    assert ig.load(tmp_path / "branch")[2] == GRAYS
    rates = [line["learning_rate"] for line in read_metrics(tmp_path / "branch" / "metrics.jsonl")]
    assert rates == pytest.approx([3e-3, 2.25e-3, 1.5e-3, 0.75e-3])


@pytest.mark.parametrize(
    ("place", "arguments", "message"),
    [
        ("/checkpoints/4", ["--config.optimizer.decay_fraction=0.75"], "learning rates that this run does not have"),
        ("/checkpoints/4", ["--config.steps=4"], "has taken 4 steps, and steps=4; raise steps"),
        ("/checkpoints/5", [], "checkpoints/5 is not there; .* has the checkpoints 4, 2: name one"),
        ("", [], "is not a checkpoint; give WORKDIR/checkpoints/STEP"),
        ("/checkpoints/4", ["--config.seed=1"], "was made with seed=0, now it is 1"),
        ("/checkpoints/4", ["--config.initialize_from=x"], "both say what the run starts from; give one"),
    ],
)
def test_what_cannot_be_continued_is_refused_in_one_line(place, arguments, message, long, tmp_path, capsys):
    assert train(tmp_path / "run", f"--config.continue_from={long}{place}", *arguments) == 2
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert re.search(message, found), found
    assert not (tmp_path / "run").exists()
