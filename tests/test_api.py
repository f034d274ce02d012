"""`import igpt_jax as ig`: one call each, compared with the equations and with what lies beneath."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.__main__ import main
from igpt_jax.generate.sample import sample

TINY = {
    "steps": 30,
    "model": {"layers": 2, "width": 32, "heads": 2, "resolution": 6, "vocabulary": 8, "unroll": 1},
    "data": {"batch_size": 16},
}


@pytest.fixture(scope="module")
def digits():
    return ig.load_images("digits", resolution=6)


@pytest.fixture(scope="module")
def pretrained(digits):
    return ig.pretrain(digits[0][:400], **TINY)


def test_pretraining_on_an_array_learns_to_predict_it(pretrained, digits):
    nats = ig.likelihood(pretrained, digits[0][400:440])
    assert nats.shape == (40, 6, 6)
    assert nats.mean() < 0.9 * np.log(8)  # a model that knows nothing has log 8


def test_the_quality_of_samples_is_held_against_a_random_choice_of_the_held_out_images(tmp_path):
    images = np.zeros((400, 6, 6, 3), np.uint8)
    images[200:] = 255  # sorted, as a folder with a sub-folder for each class is
    options = TINY | {"steps": 1, "model": TINY["model"] | {"vocabulary": 2}}
    ig.pretrain(images, workdir=tmp_path, **options)
    assert main(["igpt_jax", "quality", f"--workdir={tmp_path}", "--n=20"]) == 0
    found = json.loads((tmp_path / "quality" / "quality.json").read_text())
    assert found["held_out"] == 20
    assert found["jensen_shannon"]["held_out"]["tokens"] < 0.05  # 0.2 if all are of one color


def test_likelihoods_follow_from_the_logits(pretrained, digits):
    tokens = pretrained.palette.encode(digits[0][:3])
    logits = pretrained.model.apply({"params": pretrained.params}, tokens)
    expected = -np.take_along_axis(np.asarray(jax.nn.log_softmax(logits)), tokens[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(ig.likelihood(pretrained, digits[0][:3]).reshape(3, 36), expected, atol=1e-5)


def test_a_sample_is_the_same_in_any_number_of_images(pretrained):
    images = ig.sample(pretrained, 5, seed=1)
    assert images.shape == (5, 6, 6, 3)
    np.testing.assert_array_equal(ig.sample(pretrained, 2, seed=1, batch_size=1), images[:2])


def test_completions_begin_with_the_rows_that_are_given(pretrained, digits):
    completed = ig.complete(pretrained, digits[0][:2], rows=4, n=3)
    assert completed.shape == (2, 3, 6, 6, 3)
    given = pretrained.palette.decode(pretrained.palette.encode(digits[0][:2]))[:, None, :4]
    np.testing.assert_array_equal(completed[:, :, :4], np.repeat(given, 3, axis=1))


def test_a_probe_of_separable_images_is_right(pretrained):
    labels = np.arange(60) % 2
    images = np.where(labels[:, None, None, None], 255, 0) * np.ones((1, 6, 6, 3))
    result = ig.probe(pretrained, images.astype(np.uint8), labels, images.astype(np.uint8), labels)
    assert result.accuracy == max(result.accuracies) == 100
    assert ig.features(pretrained, images[:5].astype(np.uint8)).shape == (3, 5, 32)


@pytest.mark.parametrize("to", ["igpt", "huggingface", "openai"])
def test_what_is_saved_is_loaded_again(pretrained, digits, tmp_path, to):
    ig.save(pretrained, tmp_path / to, to=to)
    back = ig.load(tmp_path / to, palette=pretrained.palette)
    assert back.palette == pretrained.palette
    expected, nats = (ig.likelihood(model, digits[0][:4]) for model in (pretrained, back))
    np.testing.assert_allclose(nats, expected, atol=1e-5)
    with pytest.raises(ig.InputError, match="exists"):
        ig.save(pretrained, tmp_path / to, to=to)


def test_a_bert_model_fills_what_a_mask_hides(digits):
    bert = ig.pretrain(digits[0][:50], **TINY | {"steps": 4, "objective": {"name": "bert"}})
    mask = np.zeros((6, 6), bool)
    mask[2:4] = True
    completed = ig.complete(bert, digits[0][:2], mask=mask, n=2)
    known = bert.palette.decode(bert.palette.encode(digits[0][:2]))
    np.testing.assert_array_equal(completed[:, 0][:, ~mask], known[:, ~mask])


def test_a_workdir_of_an_array_resumes_and_serves_the_commands(digits, tmp_path):
    first = ig.pretrain(digits[0][:50], workdir=tmp_path / "run", **TINY | {"steps": 4})
    again = ig.pretrain(digits[0][:50], workdir=tmp_path / "run", **TINY | {"steps": 4})
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    command = [sys.executable, "-m", "igpt_jax", "evaluate", f"--workdir={tmp_path / 'run'}", "--report=False"]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "nats/token" in finished.stdout


def test_a_workdir_of_other_images_is_refused(digits, tmp_path):
    ig.pretrain(digits[0][:50], workdir=tmp_path / "run", **TINY | {"steps": 2})
    with pytest.raises(ig.InputError, match="tokens"):
        ig.pretrain(digits[0][50:100], workdir=tmp_path / "run", **TINY | {"steps": 2})


def test_a_named_source_is_pretrained_on():
    pretrained = ig.pretrain("digits", steps=2, model={"layers": 1, "resolution": 8, "vocabulary": 4})
    assert pretrained.model.config.layers == 1
    assert ig.sample(pretrained, 1).shape == (1, 8, 8, 3)


def test_a_workdir_keeps_the_palette_that_is_given(tmp_path):
    small = {"steps": 2, "model": {"layers": 1, "resolution": 8}, "workdir": tmp_path / "run"}
    dark, light = (ig.Palette(np.linspace(-1, end, 6).reshape(2, 3)) for end in (0, 1))
    assert ig.pretrain("digits", palette=dark, **small).palette == dark
    with pytest.raises(ig.InputError, match="another palette"):
        ig.pretrain("digits", palette=light, **small)


RUN_ELSEWHERE = """
import sys
import jax, jax.export, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
np.save(sys.argv[3], np.asarray(program.call(np.load(sys.argv[2]))))
assert not {"igpt_jax", "flax"} & set(sys.modules)
"""


@pytest.mark.parametrize("what", ["features", "logits", "sample"])
def test_an_exported_program_computes_the_same_in_a_process_that_has_only_jax(pretrained, digits, tmp_path, what):
    model, params, palette = pretrained
    tokens = palette.encode(digits[0][:3])
    seeds = np.arange(3, dtype=np.uint32)
    expected = {
        "features": lambda: ig.features(pretrained, digits[0][:3]),
        "logits": lambda: model.apply({"params": params}, tokens),
        "sample": lambda: (
            sample(model, params, jax.vmap(jax.random.key)(seeds), np.zeros((3, 0), np.int32), window=1).tokens
        ),
    }[what]()
    ig.export(pretrained, tmp_path / "program", what=what)
    np.save(tmp_path / "x.npy", seeds if what == "sample" else tokens)
    paths = [str(tmp_path / name) for name in ("program", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", RUN_ELSEWHERE, *paths], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)


def _of(shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: ig.likelihood(model, _of((1, 5, 5, 3))), "resize them to 6x6"),
        (lambda model: ig.likelihood(model, _of((1, 6, 6, 3), np.float32)), "uint8"),
        (lambda model: ig.features(model, _of((6, 6, 3))), "shape"),
        (lambda model: ig.complete(model, _of((1, 6, 6, 3)), rows=6), "1 to 5"),
        (lambda model: ig.complete(model, _of((1, 6, 6, 3)), mask=_of((6, 6), bool)), "BERT"),
        (lambda model: ig.sample(model, 0), "at least 1"),
        (lambda model: ig.sample(model, temperature=-1), "temperature"),
        (lambda model: ig.pretrain(_of((9, 6, 5, 3))), "crop them to a square"),
        (lambda model: ig.pretrain("digits", optimiser={"b1": 0.5}), "did you mean optimizer"),
        (lambda model: ig.save(model, "x", to="keras"), "no format"),
        (lambda model: ig.export(model, "x", what="loss"), "no program"),
    ],
)
def test_bad_calls_are_refused_in_one_line(pretrained, call, message):
    with pytest.raises(ig.InputError, match=message) as refusal:
        call(pretrained)
    assert "\n" not in str(refusal.value)
