"""What must hold for every input, which hypothesis searches for a counterexample: readers refuse in one line, or read.

`python -m tests.fuzz` damages sound files; here the input is arbitrary from the start.
"""

import dataclasses
import errno
import json
import os
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import igpt_jax as ig
from igpt_jax.config import ModelConfig, RunConfig
from igpt_jax.config_format import FORMAT_VERSION, upgrade_config
from igpt_jax.errors import describe_os_error
from igpt_jax.model.image_gpt import check_tokens
from igpt_jax.parallel.processes import join
from igpt_jax.quality.sets import read_images
from igpt_jax.train.metrics import read_metrics
from igpt_jax.train.workdir_lock import read_config
from igpt_jax.weights.pickles import read_pickle
from igpt_jax.weights.tensor_files import open_tensors

settings.register_profile(
    "igpt_jax", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("igpt_jax")

LETTERS = st.characters(categories=["L", "N"])
KEYS = st.sampled_from([field.name for field in dataclasses.fields(RunConfig)]) | st.text(LETTERS, max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(LETTERS, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


ONE_LINE = r"[^\n]+"


def refusal(read, *arguments):
    """The message of the InputError with which a reader refuses its arguments; None if it reads them."""
    try:
        read(*arguments)
    except ig.InputError as error:
        return str(error)
    return None


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_dict_becomes_a_config_or_is_refused(values):
    message = refusal(RunConfig.from_dict, values)
    assert message is None or re.fullmatch(ONE_LINE, message)


@given(
    st.builds(
        lambda width, **rest: ModelConfig(width=8 * width, heads=2, **rest),
        st.integers(1, 64),
        layers=st.integers(1, 99),
        resolution=st.integers(1, 256),
        vocabulary=st.integers(1, 4096),
        activation=st.sampled_from(["quick_gelu", "squared_relu", "swiglu"]),
        remat=st.sampled_from(["auto", "none", "dots", "attention", "full"]),
        qk_norm=st.booleans(),
        zero_heads=st.booleans(),
    ),
    st.integers(0, 2**31 - 1),
)
def test_a_config_survives_json(model, seed):
    config = RunConfig(model=model, seed=seed)
    assert RunConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@given(st.dictionaries(st.sampled_from(["initialise_from", "initialize_from", "seed"]), st.text(), max_size=3))
def test_upgrading_a_config_twice_changes_nothing_more(values):
    once = upgrade_config(values, 2)
    assert "initialise_from" not in once
    assert upgrade_config(once, 2) == upgrade_config(once, FORMAT_VERSION) == once


@given(
    hnp.arrays(st.sampled_from([np.int32, np.int64, np.uint8, np.float32]), hnp.array_shapes(max_dims=3, max_side=6))
)
def test_tokens_pass_exactly_where_they_are_integers_of_the_vocabulary(tokens):
    config = ModelConfig(resolution=2, vocabulary=5)
    fits = tokens.ndim == 2 and tokens.shape[1] <= 4 and tokens.dtype.kind in "iu"
    if fits and ((tokens >= 0) & (tokens < 5)).all():
        check_tokens(config, tokens)
    else:
        with pytest.raises(ig.InputError):
            check_tokens(config, tokens)


@settings(max_examples=15)  # every palette fills a table of all colors
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.just(3)), unique=False), st.data())
def test_colors_of_the_palette_keep_their_tokens(colors, data):
    colors = np.unique(colors, axis=0)
    palette = ig.Palette((colors / 127.5 - 1).astype(np.float32))
    tokens = data.draw(hnp.arrays(np.int32, (1, 3, 3), elements=st.integers(0, len(colors) - 1)))
    np.testing.assert_array_equal(palette.encode(palette.decode(tokens.reshape(1, 9))).reshape(1, 3, 3), tokens)


READERS = {
    "palette.npy": ig.Palette.load,
    "metrics.jsonl": read_metrics,
    "weights.bin": read_pickle,
    "weights.safetensors": open_tensors,
    "samples.npz": lambda path: read_images(str(path)),
    "config.json": lambda path: read_config(path.parent),
}
HEADERS = (
    b"",
    b"\x93NUMPY\x01\x00",
    b"PK\x03\x04",
    b"\x80\x02",
    b"{",
    b"[]\n",
    b'{"step": 1}\n',
    b"\x08\0\0\0\0\0\0\0{}",
)


@pytest.mark.parametrize("name", READERS)
@given(header=st.sampled_from(HEADERS), rest=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(name, header, rest, tmp_path):
    path = tmp_path / name
    path.write_bytes(header + rest)
    message = refusal(READERS[name], path)
    assert message is None or re.fullmatch(ONE_LINE, message)


@given(st.text(max_size=30).filter(lambda text: text not in ("auto", "off") and text.count(",") != 2))
def test_any_other_text_for_distributed_is_refused(option):
    with pytest.raises(ig.InputError, match="--distributed"):
        join(option)


@given(st.sampled_from(sorted(errno.errorcode)), st.text(LETTERS, min_size=1, max_size=20))
def test_every_error_of_the_system_is_told_in_one_line_with_its_file(number, name):
    message = describe_os_error(OSError(number, os.strerror(number), name), "write the file")
    assert name in message
    assert "\n" not in message
    assert "[Errno" not in message
