"""A run's first parameters: another model's, to the bit, with a fresh class head."""

import dataclasses

import jax
import numpy as np
import pytest

import igpt_jax as ig
from igpt_jax.config import ParallelConfig
from igpt_jax.objectives import token_nats
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.state import abstract_params, init_params
from igpt_jax.weights.convert import convert
from igpt_jax.weights.origin import first_params, open_origin, resample_positions
from tests.weights.test_convert import write_workdir
from tests.weights.written import huggingface_model, openai_tensors, save_openai

SIZE = (2, 32, 4, 4, 17)  # splits over eight devices
CONFIG = ig.ModelConfig(layers=2, width=32, heads=4, resolution=4, vocabulary=17, classes=3)
PALETTE = ig.Palette(np.linspace(-1, 1, 51).reshape(17, 3))
TOKENS = np.random.default_rng(0).integers(0, 17, (8, 16)).astype(np.int32)


@pytest.fixture(scope="module")
def origins(tmp_path_factory):
    """The same weights in three formats, with a head of five classes that a run with three cannot use."""
    directory = tmp_path_factory.mktemp("origins")
    save_openai(directory / "openai" / "model.ckpt-1", openai_tensors(SIZE, classes=5))
    for to in ("huggingface", "igpt"):
        convert(directory / "openai", directory / to, to, palette=PALETTE)
    return directory


@pytest.mark.parametrize("form", ["openai", "huggingface", "igpt"])
def test_the_likelihood_of_the_origin_is_unchanged_and_every_class_equally_likely(form, origins):
    mesh = make_mesh(ParallelConfig(data=4, model=2))
    params = first_params(open_origin(str(origins / form), CONFIG), CONFIG, mesh, seed=0)
    like = abstract_params(ig.ImageGPT(CONFIG), mesh)
    jax.tree.map(
        lambda x, y: np.testing.assert_equal((x.shape, x.dtype, x.sharding), (y.shape, y.dtype, y.sharding)),
        params,
        like,
    )
    model, origin_params, _ = ig.load(origins / form, mesh=mesh)
    logits_btv, logits_bc = jax.jit(lambda p: ig.ImageGPT(CONFIG).apply({"params": p}, TOKENS, method="classify"))(
        params
    )
    expected_btv = jax.jit(lambda p: model.apply({"params": p}, TOKENS))(origin_params)
    np.testing.assert_array_equal(token_nats(logits_btv, TOKENS), token_nats(expected_btv, TOKENS))
    np.testing.assert_array_equal(logits_bc, np.zeros((8, 3)))


def test_a_token_head_that_the_origin_lacks_starts_at_zero(tmp_path):
    huggingface_model(SIZE, head="Model").save_pretrained(tmp_path)
    params = first_params(open_origin(str(tmp_path), CONFIG), CONFIG, make_mesh(ParallelConfig()), seed=0)
    assert params["token_head"].shape == (32, 17)
    assert not params["token_head"].any()
    assert params["token_embedding"].all()


def test_a_fresh_class_head_that_is_not_zero_is_the_seeds_alone(origins):
    config, mesh = dataclasses.replace(CONFIG, zero_heads=False), make_mesh(ParallelConfig())
    origin = open_origin(str(origins / "igpt"), config)
    zero, drawn, again, other = (
        first_params(origin, *arguments)
        for arguments in ((CONFIG, mesh, 0), (config, mesh, 0), (config, mesh, 0), (config, mesh, 1))
    )
    heads = [params.pop("class_head") for params in (zero, drawn, again, other)]
    assert not heads[0].any()
    np.testing.assert_array_equal(heads[1], heads[2])
    np.testing.assert_array_equal(heads[1], init_params(ig.ImageGPT(config), 0, mesh)["class_head"])
    assert (heads[1] != heads[3]).all()
    for params in (drawn, other):
        jax.tree.map(np.testing.assert_array_equal, params, zero)


def test_learned_positions_of_another_resolution_are_resampled_and_nothing_else(origins):
    mesh, config = make_mesh(ParallelConfig(data=4, model=2)), dataclasses.replace(CONFIG, resolution=6)
    same, larger = (first_params(open_origin(str(origins / "igpt"), c), c, mesh, seed=0) for c in (CONFIG, config))
    like = abstract_params(ig.ImageGPT(config), mesh)["position_embedding"]
    old, new = same.pop("position_embedding"), larger.pop("position_embedding")
    assert (new.shape, new.sharding) == (like.shape, like.sharding)
    np.testing.assert_allclose(new, resample_positions(old, 6), rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, same, larger)


def test_resampled_positions_lie_on_the_grid_of_the_old_ones():
    """A linear field stays linear where the new grid does not reach beyond the centers of the old pixels."""

    def field(side):
        center = (np.arange(side) + 0.5) / side
        return np.stack([np.repeat(center, side), np.tile(center, side)], axis=1).astype(np.float32)

    inner = (slice(1, -1), slice(1, -1))
    found, expected = (x.reshape(8, 8, 2)[inner] for x in (resample_positions(field(4), 8), field(8)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(resample_positions(field(4), 4), field(4))


def test_a_rotary_model_starts_at_another_resolution_as_it_is(tmp_path):
    config = ig.ModelConfig(layers=2, width=32, heads=4, resolution=4, vocabulary=17, positions="rotary")
    params, larger = write_workdir(tmp_path, config), dataclasses.replace(config, resolution=6)
    placed = first_params(open_origin(str(tmp_path), larger), larger, make_mesh(ParallelConfig()), seed=0)
    jax.tree.map(np.testing.assert_array_equal, placed, params)
    tokens_bt = np.random.default_rng(0).integers(0, 17, (2, 36))
    # The first row's pixels have the same places relative to each other and to the start vector in both grids.
    small, large = (ig.ImageGPT(c).apply({"params": params}, tokens_bt[:, : c.context]) for c in (config, larger))
    np.testing.assert_allclose(large[:, :4], small[:, :4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 64}, "has model.width=32, this run 64; set model.width=32"),
        ({"heads": 8}, "has model.heads=4, this run 8; set model.heads=4"),
        ({"layers": 3}, "has model.layers=2, this run 3; set model.layers=2"),
        ({"positions": "rotary"}, "has model.positions='learned', this run 'rotary'; set model.positions=learned"),
        ({"qk_norm": True}, "has model.qk_norm=False, this run True; set model.qk_norm=False"),
        ({"activation": "swiglu"}, "has model.activation='quick_gelu', this run 'swiglu'; set model.activation="),
        ({"vocabulary": 16}, "has model.vocabulary=17, this run 16; set model.vocabulary=17"),
        ({"objective": "bert"}, "has objective.name='ar', this run 'bert'; set objective.name=ar"),
        ({"tied_head": True}, "has model.tied_head=False, this run True; set model.tied_head=False"),
        ({"use_bias": True}, "has model.use_bias=False, this run True; set model.use_bias=False"),
    ],
)
def test_another_model_is_refused_by_the_option_that_differs(change, message, origins):
    with pytest.raises(ig.InputError, match=message):
        open_origin(str(origins / "openai"), dataclasses.replace(CONFIG, **change))
