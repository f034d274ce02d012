"""The rehearsal of `experiments.accelerator`: cut off, continued, and finished, without TensorFlow or transformers."""

import json
import math
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.accelerator import correct, data
from experiments.accelerator.results import Results
from igpt_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
# Modules that an accelerator's machine may lack; a file of the same name that raises stands before the real one.
ABSENT = ("tensorflow", "tensorflow_datasets", "transformers", "ml_collections", "clu", "sklearn", "einops", "tqdm")


def rehearse(directory, minutes, parts):
    blocked = directory / "blocked"
    blocked.mkdir(exist_ok=True)
    for name in ABSENT:
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is blocked', name='{name}')\n")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{blocked}"}
    environment |= {"TORCHDYNAMO_DISABLE": "1"}  # torch's compilation takes minutes
    command = [sys.executable, "-m", "experiments.accelerator", "--rehearsal", f"--out={directory / 'results'}"]
    finished = subprocess.run(
        [*command, f"--minutes={minutes}", f"--parts={parts}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout


def part(directory, name):
    return json.loads((directory / "results" / f"{name}.json").read_text())


def test_a_rehearsal_that_is_cut_off_goes_on_where_it_was(tmp_path):
    rehearse(tmp_path, 0.05, "probe,drawing")
    first = part(tmp_path, "probe")
    assert not part(tmp_path, "drawing")["finished"]

    printed = rehearse(tmp_path, 10, "probe,drawing,training,correct,peers,recipes")
    for name in ("probe", "drawing", "training", "correct", "peers", "recipes"):
        found = part(tmp_path, name)
        assert found["finished"] == (name != "peers")  # which lacks transformers here
        assert found["device"]["platform"] == "cpu"
        assert f"--parts={name}" in found["command"]
        for case, outcome in found["cases"].items():
            assert case in printed
            assert "is blocked" in outcome["error"] if "transformers" in case else outcome["figures"]
    assert first["cases"].items() <= part(tmp_path, "probe")["cases"].items()
    correct = {name: outcome["figures"] for name, outcome in part(tmp_path, "correct")["cases"].items()}
    assert correct["attention blockwise float32"]["largest"] < 1e-5
    assert correct["attention blockwise bfloat16"]["largest"] < 2e-2
    assert correct["logits and gradients, full float32"]["gradients"] < 1e-5
    assert correct["cached drawing"]["largest logit difference"] < 1e-4
    assert correct["loss curve"]["bfloat16, largest difference"] < 0.05

    assert "times torch's images/s" in printed
    assert "times the tokens/s of torch, minimal" in printed
    assert "probe: finished before" in rehearse(tmp_path, 1, "probe")


def test_figures_of_another_device_or_of_a_rehearsal_are_not_continued(tmp_path):
    results = Results.open(tmp_path, "probe")
    results.describe({"device": "TPU v6 lite"}, "command", True)
    results.add("features", {"figures": {"images/s": 1.0}}, 1.0)
    Results.open(tmp_path, "probe").describe({"device": "TPU v6 lite"}, "command", True)
    for device, rehearsal in (("NVIDIA H200", True), ("TPU v6 lite", False)):
        with pytest.raises(InputError, match="has figures of TPU v6 lite, of a rehearsal; give another --out"):
            Results.open(tmp_path, "probe").describe({"device": device}, "command", rehearsal)


@pytest.mark.parametrize("wrong", [math.nan, 0.2])
def test_a_check_fails_where_a_difference_is_too_large_or_not_a_number(wrong):
    assert correct._within({"largest": 0.1}, {"largest": 0.05}) == {"largest": 0.05}
    with pytest.raises(ValueError, match=r"largest is .*, and should be at most 0.1"):
        correct._within({"largest": 0.1}, {"largest": wrong})


def test_held_out_crops_share_no_pixel_with_those_that_are_trained_on():
    training, held_out = (data.photographs(4, 32, seed, held_out=part) for seed, part in ((0, False), (1, True)))
    assert training.shape == held_out.shape == (4, 1024)
    pictures = list(np.load(data.PHOTOGRAPHS).values())
    for crops, left, right in ((training, 0, 2 / 3), (held_out, 2 / 3, 1)):
        for crop in crops.reshape(-1, 32, 32):
            places = [
                (x, picture.shape[1])
                for picture in pictures
                for x in range(picture.shape[1] - 31)
                for y in range(picture.shape[0] - 31)
                if (picture[y : y + 32, x : x + 32] == crop).all()
            ]
            assert any(int(left * width) <= x and x + 32 <= int(right * width) + 1 for x, width in places)


def test_a_machine_without_an_accelerator_is_told_of_the_rehearsal(tmp_path):
    command = [sys.executable, "-m", "experiments.accelerator", f"--out={tmp_path}"]
    refused = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "no GPU or TPU here; add --rehearsal" in refused.stderr
