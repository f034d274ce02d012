"""The codec: a place among palettes, its file, and its training."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest

from igpt_jax.codes.codec import FILE, Codec
from igpt_jax.codes.config import CodecConfig, NetworkConfig
from igpt_jax.codes.network import Encoder
from igpt_jax.config import ParallelConfig
from igpt_jax.errors import InputError, Preempted
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.codec import codec_of, first_state, fit, make_optimizer, measure, perplexity, train_step
from igpt_jax.train.metrics import read_metrics
from igpt_jax.train.preemption import Preemption

SMALL = NetworkConfig(factor=8, levels=(4, 4, 4), width=16, blocks=1)
QUANTIZED = {"fsq": SMALL, "vq": dataclasses.replace(SMALL, quantizer="vq", codes=32, code_width=4)}


def training(quantizer="fsq", **options):
    options = {"steps": 8, "resolution": 16, "checkpoint_every": 3, "log_every": 1, "learning_rate": 3e-3} | options
    return CodecConfig(network=QUANTIZED[quantizer], **options)


def pictures(count, resolution=16, seed=0):
    """Smooth random pictures: a few colors, blended."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 256, (count, 2, 2, 3))
    ramp = np.linspace(0, 1, resolution)
    rows = np.stack([1 - ramp, ramp])
    return np.einsum("nabc,ah,bw->nhwc", corners, rows, rows).round().astype(np.uint8)


def batches_from(step):
    for number in itertools.count(step):
        yield {"image": pictures(8, seed=number)}


@pytest.fixture(params=QUANTIZED)
def codec(request):
    config = training(request.param)
    return codec_of(config, first_state(config, make_optimizer(config)))


def test_pictures_become_a_grid_of_codes_and_pictures_again(codec):
    images = pictures(70, 32)
    tokens = codec.encode(images)
    assert tokens.shape == (70, 16)
    assert tokens.dtype == np.int32
    assert tokens.min() >= 0
    assert tokens.max() < len(codec)
    assert codec.decode(tokens).shape == images.shape
    np.testing.assert_array_equal(codec.encode(images[3:5]), tokens[3:5])  # a picture does not depend on its batch
    np.testing.assert_array_equal(codec.decode(tokens[:1]), codec.decode(tokens)[:1])


def test_a_code_sees_its_neighborhood_alone():
    config, image = training(), pictures(1, 64)
    network = dataclasses.replace(config.network, blocks=0)
    variables = Encoder(network).init(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    codec = Codec(network, {"encoder": variables["params"], "decoder": {}})
    changed = image.copy()
    changed[0, 8:16, 16:24] = 255 - changed[0, 8:16, 16:24]
    differs = (codec.encode(image) != codec.encode(changed)).reshape(8, 8)
    assert set(zip(*np.nonzero(differs), strict=True)) <= {(1, 2)}


def test_a_file_gives_back_the_same_codec(codec, tmp_path):
    codec.save(tmp_path / FILE)
    for place in (tmp_path, tmp_path / FILE):
        again = Codec.load(place)
        assert again == codec
        assert again.config == codec.config
        np.testing.assert_array_equal(again.encode(pictures(2)), codec.encode(pictures(2)))
    other = training(seed=1)
    assert codec_of(other, first_state(other, make_optimizer(other))) != codec


@pytest.mark.parametrize("content", [b"", b"no safetensors at all", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"])
def test_what_is_no_codec_is_refused(content, tmp_path):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(InputError, match="is not a codec"):
        Codec.load(tmp_path)
    with pytest.raises(InputError, match="there is no codec at"):
        Codec.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.float32), "images are float32"),
        (np.zeros((1, 16, 8, 3), np.uint8), "expected \\(b, r, r, 3\\)"),
        (np.zeros((1, 12, 12, 3), np.uint8), "a side of 12 pixels; resize it to a multiple of 8"),
    ],
)
def test_other_images_are_refused(codec, images, message):
    with pytest.raises(InputError, match=message):
        codec.encode(images)


@pytest.mark.parametrize(("tokens", "message"), [([[0, 1]], "expected integers"), ([[-1]], "span"), ([[99]], "span")])
def test_other_codes_are_refused(codec, tokens, message):
    with pytest.raises(InputError, match=message):
        codec.decode(np.array(tokens))


def train(workdir, config, preemption=None):
    workdir.mkdir(exist_ok=True)
    mesh = make_mesh(ParallelConfig(), jax.devices()[:2])
    return fit(config, workdir, batches_from, mesh, preemption or Preemption())


def moved_by(config, steps):
    """How far some steps of training move every parameter."""
    optimizer = make_optimizer(config)
    state = first = first_state(config, optimizer)
    for step in range(steps):
        state, _ = jax.jit(train_step, static_argnums=(0, 1))(config, optimizer, state, pictures(8, seed=step))
    return jax.tree.map(lambda new, old: np.asarray(new - old), state.params, first.params)


@pytest.mark.parametrize("quantizer", QUANTIZED)
def test_every_parameter_gets_a_gradient(quantizer):
    moved = moved_by(training(quantizer), steps=4)  # the first rate is 0, and the blocks start as the identity
    for path, difference in jax.tree.leaves_with_path(moved):
        assert np.any(difference != 0), jax.tree_util.keystr(path)


def test_muon_updates_the_matrices_between_hidden_layers():
    """Its updates have singular values near the rate, times sqrt(outputs / inputs) if that is above 1."""
    moved = moved_by(training("fsq", learning_rate=1e-9, muon_learning_rate=0.1), steps=2)  # the first rate is 0
    kernel = moved["encoder"]["block_0_0"]["second"]["kernel"]  # 3x3 convolution
    values = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)
    assert 0.06 < np.median(values) < 0.13
    assert np.abs(moved["encoder"]["patches"]["kernel"]).max() < 1e-6


@pytest.mark.parametrize("quantizer", QUANTIZED)
def test_training_reconstructs_what_it_has_not_seen(quantizer, tmp_path):
    untrained = training(quantizer)
    held_out = [{"image": pictures(32, seed=10_000)}]
    before = measure(codec_of(untrained, first_state(untrained, make_optimizer(untrained))), iter(held_out))
    after = measure(train(tmp_path, training(quantizer, steps=200, checkpoint_every=200)), iter(held_out))
    assert after["psnr"] > before["psnr"] + 6
    assert after["perplexity"] > 8
    nats = [line["mean_squared_error"] for line in read_metrics(tmp_path / "metrics.jsonl")]
    assert len(nats) == 200


@pytest.mark.parametrize("quantizer", QUANTIZED)
def test_an_interrupted_training_ends_as_an_undisturbed_one(quantizer, tmp_path):
    class Stops(Preemption):
        def reached(self, step):
            if step == 5:
                self._signal = 15
            return super().reached(step)

    config = training(quantizer)
    with pytest.raises(Preempted):
        train(tmp_path / "stopped", config, Stops())
    stopped, undisturbed = train(tmp_path / "stopped", config), train(tmp_path / "undisturbed", config)
    assert stopped == undisturbed
    ours, theirs = (read_metrics(tmp_path / name / "metrics.jsonl") for name in ("stopped", "undisturbed"))
    assert ours == theirs


def test_the_perplexity_of_equal_shares_is_their_number():
    assert perplexity(np.full(7, 1 / 7)) == pytest.approx(7, rel=1e-5)
    assert perplexity(np.array([1.0, 0.0])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": {"factor": 5}}, "factor=5 is not 4, 8 or 16"),
        ({"network": {"levels": [8, 1]}}, "at least 2 levels"),
        ({"network": {"levels": [100, 100, 100]}}, "at most 65,536"),
        ({"network": {"quantizer": "pq"}}, "is none of fsq, vq"),
        ({"resolution": 100}, "no multiple of network.factor=8; set it to 96"),
        ({"decay": 1.0}, "in \\(0, 1\\)"),
        ({"muon_learning_rate": 0.0}, "muon_learning_rate=0.0 must be positive"),
        ({"stepz": 1}, "did you mean steps"),
    ],
)
def test_options_that_cannot_work_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        CodecConfig.from_dict(values)
