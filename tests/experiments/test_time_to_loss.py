"""The comparison of times: what its search chooses, and the torch user's side."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments.time_to_loss import SEARCHING_SEED, SEEDS, compare


def test_the_torch_user_learns_what_the_tokens_hold(tmp_path):
    """Uniform tokens of two colors out of eight: the best loss is log 2, and an untrained network's is near log 9."""
    rng = np.random.default_rng(0)
    tokens = {name: rng.integers(0, 2, shape) for name, shape in {"training": (60, 16, 9), "held_out": (33, 9)}.items()}
    np.savez(tmp_path / "tokens.npz", **tokens)
    network = {"vocab_size": 9, "n_positions": 9, "n_embd": 16, "n_layer": 1, "n_head": 2}
    arguments = [tmp_path / "tokens.npz", json.dumps(network), 0.03, 5, 0.1, 0]
    command = [sys.executable, "-m", "experiments.torch_user", *map(str, arguments)]
    environment = os.environ | {"TORCHDYNAMO_DISABLE": "1"}  # compilation takes half a minute
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    assert json.loads(done.stdout)["nats"] == pytest.approx(np.log(2), abs=0.05)


class Learners:
    """Two sides with known losses: ours learns four times as fast, with the best rate of either side."""

    steps = 1500

    def __init__(self):
        self.trained = []

    def torch(self, rate, seed):
        self.trained.append(seed)
        return 1.0 + math.log(rate / 4e-3) ** 2, 40.0

    def ours(self, steps, muon_rate, seed):
        self.trained.append(seed)
        return self.steps / (4 * steps) + math.log(muon_rate / 0.06) ** 2, 10.0


def test_the_fewest_steps_with_the_torch_user_s_loss_are_found_once_and_timed_with_every_seed(tmp_path):
    first, again = Learners(), Learners()
    result = compare(first, tmp_path / "search.json")
    assert {name: result[name] for name in ("torch_rate", "muon_rate", "steps")} == {
        "torch_rate": 4e-3,
        "muon_rate": 0.06,
        "steps": 1500 // 4,
    }
    assert result["times_as_fast"] == 4
    assert SEARCHING_SEED in first.trained
    assert compare(again, tmp_path / "search.json") == result
    assert again.trained == [seed for seed in SEEDS for _ in range(2)]
