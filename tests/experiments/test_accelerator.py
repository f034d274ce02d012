"""The rehearsal of `experiments.accelerator`: cut off, continued, and finished, without TensorFlow or transformers."""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
# Modules that an accelerator's machine may lack; a file of the same name that raises stands before the real one.
ABSENT = ("tensorflow", "tensorflow_datasets", "transformers", "ml_collections", "clu", "sklearn", "einops", "tqdm")


def rehearse(directory, minutes, parts):
    blocked = directory / "blocked"
    blocked.mkdir(exist_ok=True)
    for name in ABSENT:
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is blocked', name='{name}')\n")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{blocked}"}
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

    printed = rehearse(tmp_path, 10, "probe,drawing,training,correct,recipes")
    for name in ("probe", "drawing", "training", "correct", "recipes"):
        found = part(tmp_path, name)
        assert found["finished"]
        assert found["device"]["platform"] == "cpu"
        assert f"--parts={name}" in found["command"]
        for case, outcome in found["cases"].items():
            assert case in printed
            assert outcome["figures"]
    assert first["cases"].items() <= part(tmp_path, "probe")["cases"].items()
    correct = {name: outcome["figures"] for name, outcome in part(tmp_path, "correct")["cases"].items()}
    assert correct["attention blockwise float32"]["largest"] < 1e-5
    assert correct["attention blockwise bfloat16"]["largest"] < 2e-2
    assert correct["logits and gradients, full float32"]["gradients"] < 1e-5
    assert correct["cached drawing"]["largest logit difference"] < 1e-4
    assert correct["loss curve"]["bfloat16, largest difference"] < 0.05

    assert "probe: finished before" in rehearse(tmp_path, 1, "probe")


def test_a_machine_without_an_accelerator_is_told_of_the_rehearsal(tmp_path):
    command = [sys.executable, "-m", "experiments.accelerator", f"--out={tmp_path}"]
    refused = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert "no GPU or TPU here; add --rehearsal" in refused.stderr
