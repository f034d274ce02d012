"""One device equals many, and meshes that cannot be are refused."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

import igpt_jax as ig
from igpt_jax.config import ObjectiveConfig, OptimizerConfig, ParallelConfig
from igpt_jax.evaluate.features import split_features
from igpt_jax.generate.sample import image_keys, sample
from igpt_jax.objectives import autoregressive, objective_function
from igpt_jax.parallel.mesh import batch_sharding, check_batch, check_model, make_mesh, put_batch
from igpt_jax.train.optimizer import adam, learning_rate_schedule, make_optimizer
from igpt_jax.train.state import abstract_state, init_state
from igpt_jax.train.step import jit_train_step

CONFIG = ig.ModelConfig(layers=2, width=32, heads=8, resolution=4, vocabulary=8)
EXAMPLES = [
    {"tokens": np.random.default_rng(i).integers(0, 8, (n, 16)).astype(np.int32), "label": np.arange(n)}
    for i, n in enumerate((8, 8, 3))
]


def train(parallel, devices, steps=4, config=CONFIG, objective=autoregressive, optimizer="adam"):
    model, mesh, options = ig.ImageGPT(config), make_mesh(parallel, devices), OptimizerConfig(optimizer, 1e-2)
    schedule = learning_rate_schedule(options, steps=steps, steps_per_epoch=1)
    optimizer = make_optimizer(options, schedule, config.dtype)
    state = init_state(model, optimizer, 0, mesh)
    step = jit_train_step(model, optimizer, objective, 0, mesh, parallel.microbatches)
    rng, losses = np.random.default_rng(0), []
    for _ in range(steps):
        batch = {"tokens": rng.integers(0, CONFIG.vocabulary, (16, CONFIG.context)).astype(np.int32)}
        batch["label"] = batch["tokens"][:, 0] // 2
        state, metrics = step(state, put_batch(batch, mesh))
        losses.append([float(metrics[name]) for name in ("nats_per_token", "class_nats") if name in metrics])
    return losses, state, mesh


@pytest.fixture(scope="module")
def one_device():
    return train(ParallelConfig(), jax.devices()[:1])


@pytest.mark.parametrize(
    ("data", "model", "slices"), [(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (2, 2, 2), (1, 2, 4)]
)
def test_a_mesh_trains_evaluates_and_samples_as_one_device_does(data, model, slices, one_device):
    losses, state, mesh = one_device
    mesh_losses, mesh_state, other_mesh = train(ParallelConfig(data, model, slices), jax.devices())
    np.testing.assert_allclose(losses, mesh_losses, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), state.params, mesh_state.params)
    up = mesh_state.params["blocks"]["mlp"]["up"]["kernel"]
    assert up.addressable_shards[0].data.shape == (2, 32 // data, 128 // model)
    moment = mesh_state.opt_state[0].mu["blocks"]["attention"]["query"]["kernel"]
    assert moment.addressable_shards[0].data.shape == (2, 32 // data, 8 // model, 4)

    network = ig.ImageGPT(CONFIG)
    expected, _ = split_features(network, state.params, EXAMPLES, mesh)
    features, labels = split_features(network, mesh_state.params, EXAMPLES, other_mesh)
    assert features.shape == (3, 19, 32)
    np.testing.assert_array_equal(labels, np.concatenate([batch["label"] for batch in EXAMPLES]))
    np.testing.assert_allclose(features, expected, atol=1e-3)
    nothing = np.zeros((3, 0), np.int32)
    samples = [
        sample(network, params, image_keys(0, 3), nothing).tokens for params in (state.params, mesh_state.params)
    ]
    np.testing.assert_array_equal(*samples)


def test_microbatches_add_up_to_the_whole_batch(one_device):
    losses, state, _ = one_device
    for parallel, devices in ((ParallelConfig(microbatches=4), 1), (ParallelConfig(4, 2, microbatches=2), 8)):
        part_losses, part_state, _ = train(parallel, jax.devices()[:devices])
        np.testing.assert_allclose(losses, part_losses, rtol=1e-5)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), state.params, part_state.params)


@pytest.mark.parametrize(("name", "head_layer"), [("ar", 1), pytest.param("bert", -1, marks=pytest.mark.slow)])
def test_a_mesh_fine_tunes_as_one_device_does(name, head_layer):
    config = dataclasses.replace(CONFIG, objective=name, classes=4, head_layer=head_layer, remat="full")
    objective = objective_function(ObjectiveConfig(name, class_weight=0.5))
    losses, state, _ = train(ParallelConfig(), jax.devices()[:1], 3, config, objective)
    parallel = ParallelConfig(4, 2, microbatches=2 if name == "ar" else 1)  # a microbatch draws masks of its own
    mesh_losses, mesh_state, _ = train(parallel, jax.devices(), 3, config, objective)
    np.testing.assert_allclose(losses, mesh_losses, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), state.params, mesh_state.params)
    assert mesh_state.params["class_head"].addressable_shards[0].data.shape == (8, 4)


@pytest.mark.parametrize(
    ("name", "data", "model", "slices"),
    [("ar", 2, 4, 1), ("ar", 2, 2, 2), pytest.param("bert", 8, 1, 1, marks=pytest.mark.slow)],
)
def test_a_mesh_trains_a_model_of_today_with_muon_as_one_device_does(name, data, model, slices):
    config = dataclasses.replace(
        CONFIG, width=64, objective=name, positions="rotary", qk_norm=True, activation="swiglu"
    )
    objective = objective_function(ObjectiveConfig(name))
    losses, state, _ = train(ParallelConfig(), jax.devices()[:1], 3, config, objective, "muon")
    parallel = ParallelConfig(data, model, slices)
    mesh_losses, mesh_state, _ = train(parallel, jax.devices(), 3, config, objective, "muon")
    np.testing.assert_allclose(losses, mesh_losses, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-3), state.params, mesh_state.params)
    momenta = {
        jax.tree_util.keystr(path): leaf
        for path, leaf in jax.tree.leaves_with_path(mesh_state.opt_state)
        if "trace" in jax.tree_util.keystr(path)
    }
    assert len(momenta) == 7
    (gate,) = (leaf for path, leaf in momenta.items() if "gate" in path)
    assert gate.sharding == mesh_state.params["blocks"]["mlp"]["gate"]["kernel"].sharding
    assert gate.addressable_shards[0].data.shape == (2, 64 // data, config.mlp_width // model)


@pytest.mark.parametrize("recipe", ["paper", "modern"])
def test_the_step_of_the_large_model_lowers_for_512_tpus_that_are_not_there(recipe):
    config = dataclasses.replace(ig.SIZES["l"], dtype="bfloat16", attention="splash", remat="full")
    mesh = AbstractMesh((1, 128, 4), ("slice", "data", "model"), axis_types=(AxisType.Auto,) * 3)
    optimizer = adam(OptimizerConfig(), lambda step: 1e-3)
    if recipe == "modern":
        config = dataclasses.replace(config, positions="rotary", qk_norm=True, activation="swiglu")
        optimizer = make_optimizer(OptimizerConfig("muon"), lambda step: 1e-3, config.dtype)
    model = ig.ImageGPT(config)
    tokens = jax.ShapeDtypeStruct((128, config.context), np.int32, sharding=batch_sharding(mesh))
    step = jit_train_step(model, optimizer, autoregressive, 0, mesh)
    traced = step.trace(abstract_state(model, optimizer, mesh), {"tokens": tokens})
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert '"slice"=1, "data"=128, "model"=4' in text
    # In a device's hands: one image, four of the sixteen heads; and the kernel forward, again, and two backward.
    assert text.count("tpu_custom_call") >= 3
    assert "tensor<1x4x1024x96xbf16>" in text


@pytest.mark.parametrize(
    ("parallel", "message"),
    [
        (ParallelConfig(3, 2), "data=3 x parallel.model=2 does not match 8 devices; set .*data=4 and .*model=2"),
        (ParallelConfig(-1, 3), "model=3 does not match 8 devices; set parallel.data=4 and parallel.model=2"),
        (ParallelConfig(16, -1), "data=16 x .* does not match 8 devices; set parallel.data=8 and parallel.model=1"),
        (ParallelConfig(8, 1, 2), "data=8 x .* does not match 4 devices of a slice; set parallel.data=4"),
        (ParallelConfig(slices=3), "parallel.slices=3, but the 8 devices are of 1; set it to 1"),
    ],
)
def test_a_mesh_that_does_not_match_the_devices_is_refused(parallel, message):
    with pytest.raises(ig.InputError, match=message):
        make_mesh(parallel)


def test_a_batch_that_does_not_split_is_refused_with_the_nearest_that_does():
    with pytest.raises(
        ig.InputError, match=r"data.batch_size=20 is not divisible by the 8 devices .* set it to (16|24)$"
    ):
        check_batch("data.batch_size", 20, make_mesh(ParallelConfig()))
    with pytest.raises(ig.InputError, match=r"=24 is not divisible by the 8 devices of .* x 2 microbatches; .* to 32"):
        check_batch("data.batch_size", 24, make_mesh(ParallelConfig()), microbatches=2)


def test_a_model_that_does_not_split_is_refused_with_a_mesh_that_fits():
    with pytest.raises(
        ig.InputError, match=r"width, 36, is not divisible by the 8 .* use parallel.data=4 and parallel.model=2"
    ):
        check_model(ig.ModelConfig(width=36, heads=4), make_mesh(ParallelConfig()))
    with pytest.raises(
        ig.InputError, match=r"heads, 6, is not divisible by the 4 devices .* use parallel.data=4 and parallel.model=2"
    ):
        check_model(ig.ModelConfig(width=48, heads=6), make_mesh(ParallelConfig(2, 4)))


def test_an_mlp_that_does_not_split_is_refused():
    config = ig.ModelConfig(width=512, heads=16, activation="swiglu")
    mesh = jax.sharding.AbstractMesh((1, 1, 16), ("slice", "data", "model"))
    with pytest.raises(ig.InputError, match=r"MLP width, 1368, is not divisible by the 16 .*data=2 and .*model=8"):
        check_model(config, mesh)


def test_a_kernel_for_other_devices_is_refused():
    with pytest.raises(ig.InputError, match=r"model.attention=splash runs on a tpu, not on a cpu; set it to auto"):
        check_model(ig.ModelConfig(attention="splash"), make_mesh(ParallelConfig()))
    with pytest.raises(ig.InputError, match=r"attention=cudnn needs model.dtype=bfloat16, not float32, and heads"):
        check_model(ig.ModelConfig(attention="cudnn"), make_mesh(ParallelConfig()))
    with pytest.raises(ig.InputError, match=r"at most 128, not 256; set it to auto"):
        check_model(ig.ModelConfig(attention="cudnn", dtype="bfloat16", heads=2), make_mesh(ParallelConfig()))
