"""The torch user's side of the comparison of times."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest


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
