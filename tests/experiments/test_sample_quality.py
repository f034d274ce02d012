"""Sample quality by temperature: from finished measurements to the table, and the command in small."""

import json

import numpy as np
import pytest

from experiments import sample_quality
from experiments.runs import FINISHED, work_directory
from experiments.sample_quality import FEATURES_SEED, PARTS, RECIPES, RUNS, SEEDS, Setting, main, settings, summarize

NAMES = ("fid", "kid", "precision", "recall", "density", "coverage")


def result(fid, floor=1.0):
    """What quality.json says, with every distance equal to `fid`."""
    return {
        "features": {
            "network": "a network",
            "samples": dict.fromkeys(NAMES, fid),
            "held_out": dict.fromkeys(NAMES, floor),
        },
        "nearest_training_image": {
            "samples": {"median": 10 * fid, "copies": 0},
            "held_out": {"median": 10 * floor, "copies": 0},
        },
    }


@pytest.mark.parametrize("data", RUNS)
def test_measured_models_become_a_table_with_their_floor(data, tmp_path):
    for recipe in RECIPES:
        job = sample_quality._job(data, recipe)
        for seed in SEEDS:
            workdir = work_directory(job, tmp_path, seed)
            workdir.mkdir()
            (workdir / FINISHED).write_text(json.dumps({"result": ".", "commands": [], "wall_seconds": 1}))
            for temperature, top_p, images in settings(RUNS[data]["images"]):
                out = workdir / f"quality-temperature{temperature:g}-top_p{top_p:g}-n{images}"
                out.mkdir()
                (out / "quality.json").write_text(json.dumps(result(temperature + seed, floor=100 / images)))
    features = work_directory(sample_quality._job(data, "paper"), tmp_path / "features", FEATURES_SEED)
    features.mkdir(parents=True)
    (features / FINISHED).write_text(json.dumps({"result": ".", "commands": [], "wall_seconds": 1}))
    assert main([data, f"--workdir={tmp_path}", "--jobs=1"]) == 0
    results = json.loads((tmp_path / "results" / data / "results.json").read_text())
    rows = results["rows"]
    images = RUNS[data]["images"]
    assert len(rows) == len(RECIPES) * len(settings(images)) + len(PARTS) + 1
    assert rows[0]["fid"]["mean"] == pytest.approx(rows[0]["temperature"] + np.mean(SEEDS))
    assert rows[0]["fid"]["std"] == pytest.approx(1.0)
    floors = {row["images"]: row["fid"]["mean"] for row in rows if row["recipe"] == "held-out images"}
    assert floors == {images // part: 100 / (images // part) for part in (1, *PARTS)}
    table = (tmp_path / "results" / data / "table.md").read_text()
    assert "a network" in table
    assert table.count("\n| ") == len(rows) + 1
    for name in ("figure.png", "number.png"):
        assert (tmp_path / "results" / data / name).stat().st_size > 5000


def test_one_seed_has_no_deviation():
    one = summarize({("paper", Setting(1.0, 1.0, 360)): [result(2.0)]})[0]
    assert one["fid"] == {"mean": 2.0, "std": 0.0, "values": [2.0]}


def test_another_data_set_is_refused(tmp_path, capsys):
    assert main(["imagenet", f"--workdir={tmp_path}"]) == 2
    assert "choose one of digits, emoji, photographs" in capsys.readouterr().err
