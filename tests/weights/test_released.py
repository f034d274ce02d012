"""experiments/released.py on files of the released formats, with a narrow model in them."""

import re

import numpy as np
from PIL import Image

import igpt_jax as ig
from experiments.released import main
from tests.weights import openai_reference
from tests.weights.written import openai_tensors, save_openai

SIZE = (1, 16, 2, 32, 512)  # 32x32 images in 512 colors


def test_it_measures_likelihood_completions_and_a_probe(tmp_path, capsys):
    rng = np.random.default_rng(0)
    tensors = openai_tensors(SIZE)
    save_openai(tmp_path / "model.ckpt-1000000", tensors)
    ig.Palette(rng.uniform(-1, 1, (512, 3))).save(tmp_path / "kmeans_centers.npy")
    tokens = {"imagenet_teX": 2, "cifar10_trX": 24, "cifar10_teX": 8}
    for name, count in tokens.items():
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 512, (count, 1024)))
    for name, count in {"cifar10_trY": 24, "cifar10_teY": 8}.items():
        np.save(tmp_path / f"{name}.npy", np.eye(10)[rng.integers(0, 10, count)])

    arguments = [f"--weights={tmp_path / 'model.ckpt-1000000'}", f"--data={tmp_path}", f"--out={tmp_path / 'out'}"]
    assert main([*arguments, "--limit=20"]) == 0
    output = capsys.readouterr().out
    tokens_bt = np.load(tmp_path / "imagenet_teX.npy")
    logits_btv, _ = openai_reference.forward(tensors, tokens_bt)
    logs_btv = np.log(openai_reference.softmax(logits_btv))
    expected = -np.take_along_axis(logs_btv, tokens_bt[..., None], -1).mean()
    printed = re.search(r"test: ([\d.]+) nats/token on 2 images", output)
    np.testing.assert_allclose(float(printed[1]), expected, atol=1e-4)
    assert re.search(r"linear probe on CIFAR-10: [\d.]+ % at layer [01] of 1", output)
    with Image.open(tmp_path / "out" / "completions.png") as picture:
        assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 100


def test_what_is_missing_is_said_in_one_line(tmp_path, capsys):
    np.save(tmp_path / "imagenet_teX.npy", np.zeros((1, 1024), int))
    assert main(["--weights=nowhere", f"--data={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "lacks cifar10_trX.npy, cifar10_trY.npy, cifar10_teX.npy, cifar10_teY.npy; " in error
    for name in ("cifar10_trX", "cifar10_trY", "cifar10_teX", "cifar10_teY"):
        np.save(tmp_path / f"{name}.npy", np.zeros((1, 1024), int))
    assert main(["--weights=nowhere", f"--data={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "no checkpoint in nowhere" in error
    assert error.count("\n") == 1
