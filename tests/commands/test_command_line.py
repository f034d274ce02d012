"""The command line as people use it: a small run from nothing to its pictures, and refusals in one line."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import igpt_jax as ig
from igpt_jax.__main__ import main
from igpt_jax.objectives import token_nats
from igpt_jax.train.metrics import read_metrics

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = ROOT / "experiments" / "digits.py"
SMALL = [
    "--config.steps=30",
    "--config.log_every=10",
    "--config.checkpoint_every=30",
    "--config.evaluate.every=20",
    "--config.evaluate.probe.augmented_epochs=0",
    "--config.optimizer.warmup_epochs=0.2",
    "--config.model.layers=1",
    "--config.model.width=16",
    "--config.model.heads=2",
    "--config.evaluate.probe.l2=(0.1,)",
]


def igpt(*arguments):
    return main(["igpt_jax", *map(str, arguments)])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "digits"
    assert igpt("train", f"--config={CONFIG}", f"--workdir={directory}", *SMALL) == 0
    return directory


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "bert"
    probes = ["--config.evaluate.probe.concatenate=2", "--config.evaluate.probe.labels_per_class=(4,)"]
    arguments = [f"--config={CONFIG}", f"--workdir={directory}", *SMALL, "--config.objective.name=bert", *probes]
    assert igpt("train", *arguments) == 0
    return directory


def test_bfloat16_on_a_cpu_is_remarked_on_once(workdir, tmp_path, capsys):
    for dtype, remarks in (("bfloat16", 1), ("float32", 0)):
        assert igpt("sample", f"--workdir={workdir}", "--n=1", f"--dtype={dtype}", f"--out={tmp_path / dtype}") == 0
        assert capsys.readouterr().err.count("bfloat16 is for accelerators; on this CPU, float32 is faster") == remarks


def test_a_run_leaves_its_measurements_and_its_pictures(workdir):
    evaluation = json.loads((workdir / "evaluation.json").read_text())
    assert evaluation["step"] == 30
    assert 0 < evaluation["nats_per_token"]["test"] < np.log(16)
    probe = evaluation["probe"]
    assert len(probe["layers"]) == 2
    assert probe["accuracy"] == probe["layers"][probe["best_layer"]]
    assert 25 < probe["raw_pixels"] < 55
    assert evaluation["wall_seconds"] > 0
    for name in ("probe_by_layer", "loss", "palette", "samples", "completions", "surprise"):
        with Image.open(workdir / "report" / f"{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 2, name


def test_the_work_dir_loads_and_predicts(workdir):
    model, params, palette = ig.load(workdir)
    image = np.zeros((1, 12, 12, 3), np.uint8)
    tokens = palette.encode(image)
    logits = model.apply({"params": params}, tokens)
    assert logits.shape == (1, 144, 16)
    np.testing.assert_array_equal(palette.decode(tokens), image)


def test_evaluate_repeats_what_training_measured(workdir):
    before = json.loads((workdir / "evaluation.json").read_text())
    assert igpt("evaluate", f"--workdir={workdir}") == 0
    after = json.loads((workdir / "evaluation.json").read_text())
    assert before["nats_per_token"] == pytest.approx(after["nats_per_token"])
    assert before["probe"] == after["probe"]


def test_sample_writes_images_a_grid_and_the_tokens(workdir, tmp_path):
    assert igpt("sample", f"--workdir={workdir}", "--n=4", "--seed=1", f"--out={tmp_path}") == 0
    written = np.load(tmp_path / "samples.npz")
    palette = ig.Palette(written["colors"])
    images = palette.decode(written["tokens"])
    for i in range(4):
        with Image.open(tmp_path / f"{i:05d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), images[i])
    assert (tmp_path / "grid.png").exists()


def test_a_window_draws_the_same_images_and_says_how_many_tokens_a_pass(workdir, tmp_path, capsys):
    tokens, paces = [], []
    for window in ("1", "4", "auto"):
        assert igpt("sample", f"--workdir={workdir}", "--n=4", f"--window={window}", f"--out={tmp_path / window}") == 0
        tokens.append(np.load(tmp_path / window / "samples.npz")["tokens"])
        paces.append(float(re.search(r"4 images, ([0-9.]+) tokens a pass", capsys.readouterr().out)[1]))
    np.testing.assert_array_equal(tokens[0], tokens[1])
    np.testing.assert_array_equal(tokens[0], tokens[2])
    assert paces[0] == 1 < paces[1] < 4


def test_an_image_is_completed_from_any_number_of_given_pixels(workdir, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 24), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    out = tmp_path / "out"
    arguments = [f"--workdir={workdir}", f"--images={tmp_path / 'photo.png'}", f"--out={out}", "--gif"]
    assert igpt("complete", *arguments, "--pixels=100", "--n=3") == 0
    written, (_, _, palette) = np.load(out / "completions.npz"), ig.load(workdir)
    small = pixels[3:27].reshape(12, 2, 12, 2).astype(float).mean(axis=(1, 3))
    given = palette.encode(np.repeat(np.round(small)[None, ..., None], 3, axis=-1).astype(np.uint8))[0, :100]
    assert written["tokens"].shape == (1, 3, 144)
    assert (written["tokens"][0, :, :100] == given).mean() > 0.95  # rounding may cross the border of two grays
    with Image.open(out / "00000_2.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), palette.decode(written["tokens"][0])[2])
    with Image.open(out / "drawing.gif") as animation:
        assert animation.n_frames == 1 + min(47, written["passes"].max())
    assert (out / "sheet.png").exists()
    assert (out / "passes.png").exists()


def test_score_writes_the_likelihood_of_every_pixel(workdir, tmp_path):
    assert igpt("score", f"--workdir={workdir}", f"--out={tmp_path}") == 0
    written, scores = np.load(tmp_path / "nats.npz"), json.loads((tmp_path / "scores.json").read_text())
    model, params, _ = ig.load(workdir)
    logits = model.apply({"params": params}, written["tokens"])
    expected = token_nats(logits, written["tokens"])
    np.testing.assert_allclose(written["nats"], expected, atol=1e-4)
    np.testing.assert_allclose(list(scores.values()), expected.mean(axis=1), atol=1e-4)
    assert (tmp_path / "surprise.png").exists()


def test_quality_compares_samples_and_held_out_images_with_the_training_images(workdir, tmp_path):
    assert igpt("quality", f"--workdir={workdir}", f"--out={tmp_path}", "--n=30", "--views=1") == 0
    found = json.loads((tmp_path / "quality.json").read_text())
    # A hardly trained model is far worse than held-out images in everything.
    nearest, divergence = found["nearest_training_image"], found["jensen_shannon"]
    assert nearest["samples"]["median"] > nearest["held_out"]["median"] > 0
    assert all(divergence["samples"][name] > divergence["held_out"][name] for name in divergence["samples"])
    assert sum(found["labels"]["shares"]["samples"]) == pytest.approx(1)
    assert (tmp_path / "neighbors.png").exists()


def test_a_run_is_measured_with_some_options_of_its_config_overridden(workdir, tmp_path, capsys):
    shutil.copytree(workdir, tmp_path / "run")
    run = f"--workdir={tmp_path / 'run'}"
    assert igpt("evaluate", run, "--report=False", "--config.evaluate.probe.layers=(1,)") == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["probe"]["layer_numbers"] == [1]
    capsys.readouterr()
    assert igpt("evaluate", "--workdir", tmp_path / "run", "--config.model.width=24") == 2
    assert "was made with model.width=" in capsys.readouterr().err
    assert igpt("train", f"--config={CONFIG}", *SMALL, run, "--config.steps=7") == 2
    assert "with --config.initialize_from=WORKDIR, which takes the weights" in capsys.readouterr().err


def test_quality_measures_distances_in_the_features_of_a_network(workdir, tmp_path):
    features = [f"--features={workdir}", "--metrics=fid,kid,prdc", f"--out={tmp_path}"]
    statistics = tmp_path / "training.npz"
    assert igpt("quality", f"--workdir={workdir}", "--n=30", *features, f"--save_statistics={statistics}") == 0
    found = json.loads((tmp_path / "quality.json").read_text())["features"]
    assert "igpt_jax run" in found["network"]
    assert found["reference_images"] > 1000
    assert found["samples"]["fid"] > found["held_out"]["fid"] > 0
    assert found["samples"]["kid"] > found["held_out"]["kid"]
    assert found["samples"]["coverage"] < found["held_out"]["coverage"]

    # A folder of pictures and the same pictures as an array are equal sets, whose distance is 0.
    images = np.random.default_rng(0).integers(0, 256, (12, 12, 12, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", arr_0=images)
    (tmp_path / "pictures").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{i:02d}.png")
    sets = [f"--samples={tmp_path / 'pictures'}", f"--reference={tmp_path / 'images.npz'}", "--neighbors=3"]
    assert igpt("quality", *sets, *features) == 0
    found = json.loads((tmp_path / "quality.json").read_text())["features"]
    assert abs(found["samples"]["fid"]) < 1e-6
    assert found["samples"]["precision"] == found["samples"]["recall"] == found["samples"]["coverage"] == 1

    against_file = [f"--samples={tmp_path / 'pictures'}", f"--reference={statistics}", *features]
    assert igpt("quality", *against_file) == 2  # no single images in it
    (tmp_path / "bad.npz").write_text("no archive")
    assert igpt("quality", sets[0], f"--reference={tmp_path / 'bad.npz'}", *features) == 2
    np.savez(tmp_path / "wide.npz", mu=np.zeros(99), sigma=np.eye(99))
    assert igpt("quality", sets[0], f"--reference={tmp_path / 'wide.npz'}", *features, "--metrics=fid") == 2
    assert igpt("quality", *against_file, "--metrics=fid") == 0


def test_probes_together_under_masks_and_of_few_labels_are_measured_and_followed(bert):
    probe = json.loads((bert / "evaluation.json").read_text())["probe"]
    assert probe["concatenated"]["layers"] == [0, 1]
    assert probe["vote"]["masks"] == 5
    assert probe["vote"]["accuracy"] == probe["vote"]["layers"][probe["best_layer"]]
    (few,) = probe["low_data"]
    assert (few["labels_per_class"], len(few["accuracies"]), len(few["raw_pixels"]["accuracies"])) == (4, 5, 5)
    assert few["accuracy"] == pytest.approx(np.mean(few["accuracies"]))
    assert few["raw_pixels"]["accuracy"] < probe["raw_pixels"]
    assert (bert / "report" / "low_data.png").exists()
    followed = [line for line in read_metrics(bert / "metrics.jsonl") if "probe/accuracy" in line]
    assert followed[0]["step"] == 20
    assert {"probe/layer_00", "probe/layer_01", "probe/concatenated", "probe/vote_accuracy"} <= set(followed[0])
    assert followed[0]["probe/accuracy"] in (followed[0]["probe/layer_00"], followed[0]["probe/layer_01"])


def test_a_bert_run_fills_masks_and_scores_but_does_not_sample(bert, tmp_path, capsys):
    assert not (bert / "report" / "samples.png").exists()
    assert (bert / "report" / "infills.png").exists()
    mask = np.zeros((12, 12), np.uint8)
    mask[2:5, 7:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "out"
    assert igpt("complete", f"--workdir={bert}", f"--mask={tmp_path / 'mask.png'}", f"--out={out}", "--n=5") == 0
    written = np.load(out / "completions.npz")
    np.testing.assert_array_equal(written["hidden"].reshape(12, 12), mask > 0)
    varies = (written["tokens"] != written["tokens"][:, :1]).any(axis=(0, 1))
    assert varies.any()
    assert not (varies & ~written["hidden"]).any()
    assert igpt("score", f"--workdir={bert}", f"--out={out}") == 0
    capsys.readouterr()
    assert igpt("sample", f"--workdir={bert}", f"--out={tmp_path / 'none'}") == 2
    error = capsys.readouterr().err
    assert "hide pixels and fill them (complete --mask=FILE.png)" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--top_k=17"], "top_k=17 exceeds the 16 colors"),
        (["sample", "--top_p=0"], "top_p=0.0 must lie in (0, 1]; 1 keeps all colors"),
        (["sample", "--n=0"], "--n=0 must be at least 1"),
        (["sample", "--window=0"], "--window=0 is no number of positions; give 1 (one by one) or more, or auto"),
        (["complete", "--window=wide"], "--window=wide is no number of positions"),
        (["sample", "--weights=w"], "give either --workdir=DIR or --weights=PATH"),
        (["sample", "--dtype=int8"], "model.dtype='int8' is not known"),
        (["complete", "--rows=12"], "144 pixels are given of 144 (12 rows of 12); give 1 to 11 rows"),
        (["complete", "--rows=3", "--pixels=9"], "give one of them"),
        (
            ["complete", "--mask=m.png"],
            "sees only the pixels before, so it cannot fill a mask; give --rows=N",
        ),
        (["complete", "--images=small.png"], "small.png has 5x20 pixels; the model sees 12 a side; enlarge it"),
        (
            ["complete", "--images=broken.png"],
            "broken.png (image 0): it is not a whole JPEG, PNG or WebP; mend",
        ),
        (["score", "--images=nothing.png"], "there is no file nothing.png"),
        (["quality", "--views=0"], "--views=0 must both be 1 or more"),
        (["quality", "--metrics=kid", "--features=x", "--kid_subset=1"], "--kid_subset=1 2 or more, or 0"),
        (["sample", "--temperature=nan"], "temperature=nan must not be negative"),
    ],
)
def test_bad_input_to_generation_is_refused_before_anything_is_written(
    workdir, tmp_path, capsys, monkeypatch, arguments, message
):
    Image.new("RGB", (5, 20)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    command, *flags = arguments
    assert igpt(command, f"--workdir={workdir}", "--out=out", *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_mask_of_another_size_is_refused(bert, tmp_path, capsys):
    Image.new("L", (9, 9), 255).save(tmp_path / "mask.png")
    assert igpt("complete", f"--workdir={bert}", f"--mask={tmp_path / 'mask.png'}", f"--out={tmp_path / 'out'}") == 2
    assert "has 9x9 pixels and the model 12x12; scale it to 12x12" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["draw"], "no command 'draw'; choose one of"),
        (["train", "--workdir=x"], "--config=FILE is missing"),
        (["train", f"--config={CONFIG}"], "--workdir=DIR is missing"),
        (["train", "--config=nowhere.py", "--workdir=x"], "nowhere.py"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.widht=3"], "did you mean model.width?"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.width=wide"], "config.model.width=wide"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.width=11"], "width=11 is not divisible"),
        (["train", f"--config={CONFIG}:abc", "--workdir=x"], "takes no argument"),
        (["train", f"--config={CONFIG}", "--wrokdir=x"], "workdir"),
        (["train", f"--config={CONFIG}", "--workdir=x", "extra"], "'extra' is not a flag"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.data.name=digit"], "'digit' is not a source"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.palette.path=p.npy"], "no palette at p.npy"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.vocabulary=99"], "17 distinct colors"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.resolution=7"], "resolution=7 is smaller"),
        (
            [
                "train",
                f"--config={CONFIG}",
                "--workdir=x",
                "--config.data.augmentation=none",
                "--config.evaluate.views=2",
            ],
            "image of data.name=digits looks the same every time; set evaluate.views=1",
        ),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.data.batch_size=20"], "batch_size=20 is not"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.model.layrs=9"], "did you mean model.layers?"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.lr=9"], "the config has no key lr; there is seed"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.steps.x=9"], "the config has no key steps.x"),
        (["train", f"--config={CONFIG}x", "--workdir=x"], "there is no config file"),
        (["train", f"--config={CONFIG}", f"--workdir={CONFIG}/x"], "cannot make the directory"),
        (["evaluate", "--workdir=nowhere"], "nowhere is not a workdir"),
        (["sample", "--workdir=nowhere", "--out=x"], "no checkpoint in"),
        (["sample", "--weights=nowhere"], "--out=DIR is missing"),
        (["complete", "--out=x"], "give either --workdir=DIR or --weights=PATH"),
        (["tain", f"--config={CONFIG}"], "there is no command 'tain'; did you mean train?"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--steps=9"], "no flag --steps; did you mean --config.steps?"),
        (["sample", "--temprature=1"], "there is no flag --temprature; did you mean --temperature?"),
        (["sample", "--n=ten"], "--n=ten is not a whole number"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.steps=1e4"], "steps=1e4 is not a whole number"),
        (["train", f"--config={CONFIG}", "--workdir=gs:/bucket/run"], "gs:/bucket/run is no path; of all addresses"),
        (["train", f"--config={CONFIG}", "--workdir=x", "--config.data.name=folder:"], "there is no folder ''"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert igpt(*arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*"))


def test_a_work_dir_of_another_config_or_palette_is_refused(workdir, tmp_path, capsys):
    arguments = ["train", f"--config={CONFIG}", f"--workdir={workdir}", *SMALL]
    assert igpt(*arguments, "--config.model.width=32") == 2
    assert "was made with model.width=16, now it is 32" in capsys.readouterr().err
    ig.Palette(np.zeros((16, 3))).save(tmp_path / "other.npy")
    assert igpt(*arguments, f"--config.palette.path={tmp_path / 'other.npy'}") == 2
    assert "palette.path" in capsys.readouterr().err


def test_help_is_quick_because_it_imports_neither_jax_nor_tensorflow():
    code = (
        "import sys; from igpt_jax.__main__ import main; assert main(['igpt_jax', 'train', '--help']) == 0; "
        "print(sorted({'jax', 'tensorflow'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "--workdir" in output
    assert output.endswith("[]\n")


def test_the_console_script_runs_config_files_that_import_modules_of_the_current_directory(tmp_path):
    script = pathlib.Path(sys.executable).with_name("igpt_jax")
    arguments = ["train", "--config=experiments/emoji.py:resolution=7", f"--workdir={tmp_path / 'run'}"]
    refused = subprocess.run([script, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "resolution=7 is not one of 16, 24, 32" in refused.stderr
