"""Measures the features that FID compares, beside pytorch-fid's own network."""

import dataclasses
import functools
import pathlib
import tempfile
from typing import Any
from unittest import mock

import numpy as np
import torch
from pytorch_fid import inception

from experiments.benchmark.measure import Result, Side, compare
from igpt_jax.config import ParallelConfig
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.quality.networks import open_network

IMAGES, SIDE, BATCH_SIZE = 128, 32, 32


def fid() -> list[Result]:
    """Computes Inception's features of 128 images of 32x32 pixels, with the same random weights on all sides.

    All resize the images as pytorch-fid does.  One peer has its images in the memory format in which pytorch-fid loads
    them; the other has channels last, which nobody asks pytorch-fid for, and which is faster.  The remark has our time
    for 10,000 images.
    """
    images_bhwc = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "pt_inception.pth"
        state = _random_weights()
        torch.save(state, path)
        network = open_network(path, "pytorch_fid", make_mesh(ParallelConfig()), BATCH_SIZE)
    with mock.patch.object(inception, "load_state_dict_from_url", return_value=state):
        peer = inception.InceptionV3().eval()
    features: dict[str, np.ndarray] = {}

    def ours() -> None:
        features["ours"] = network.features(images_bhwc)

    def theirs(memory_format: torch.memory_format) -> None:
        x_bchw = torch.from_numpy(images_bhwc).permute(0, 3, 1, 2).float() / 255
        x_bchw = x_bchw.contiguous(memory_format=memory_format)
        with torch.no_grad():
            outputs = [peer(batch)[0].flatten(1) for batch in x_bchw.split(BATCH_SIZE)]
        features["theirs"] = torch.cat(outputs).numpy()

    formats = {"pytorch-fid": torch.contiguous_format, "pytorch-fid, channels last": torch.channels_last}
    peers = {name: Side(functools.partial(theirs, one), IMAGES) for name, one in formats.items()}
    name = f"features of FID, {SIDE}x{SIDE} images"
    results = compare(name, "images/s", Side(ours, IMAGES), peers, "", rounds=3)
    off = np.abs(features["ours"] - features["theirs"]).max() / np.abs(features["theirs"]).max()
    minutes = 10_000 / results[0].ours / 60
    remark = f"features differ by {off:.0e} of the largest; 10,000 images take {minutes:.1f} minutes"
    return [dataclasses.replace(result, remark=remark) for result in results]


def _random_weights() -> dict[str, Any]:
    """The state of pytorch-fid's network as PyTorch initializes it, since this needs no download."""
    with (
        mock.patch.object(inception, "load_state_dict_from_url"),
        mock.patch.object(torch.nn.Module, "load_state_dict"),
    ):
        return inception.fid_inception_v3().state_dict()
