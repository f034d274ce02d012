"""The plan of a slice that is not there: refusals everywhere, real compilations where libtpu is installed."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from experiments.table5_pretrain import get_config
from igpt_jax.config import RunConfig
from igpt_jax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]
HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


def plan(argument, *flags):
    """In a process of its own: the compiler's environment must be set before JAX starts."""
    command = ["-m", "igpt_jax", "plan", f"--config=experiments/table5_pretrain.py:{argument}", *flags]
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.skipif(HAS_LIBTPU, reason="libtpu is installed")
def test_without_the_compiler_it_says_what_to_install():
    finished = plan("size=s,resolution=32")
    assert finished.returncode == 2
    assert "pip install 'igpt_jax[tpu]'" in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
@pytest.mark.parametrize(
    ("argument", "topology", "devices"),
    [
        ("size=s,resolution=32", "v5e:8x8", 64),
        ("size=m,resolution=32", "v5e:8x8", 64),
        ("size=l,resolution=32", "v5e:8x8", 64),
        ("size=l,resolution=32", "v5e:4x4", 16),
        ("size=l,resolution=48", "v5p:2x2x4", 16),
        ("size=xl,resolution=64", "v5p:4x4x4", 64),
    ],
)
def test_the_papers_runs_compile_and_fit(argument, topology, devices):
    finished = plan(argument, f"--topology={topology}", "--json")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["devices"] == devices
    assert found["fits"]
    # The compiler prints no program for some; and where slices are small, it makes a gather an all-reduce.
    assert set(found["collectives"] or {}) <= {"all-gather", "all-reduce", "reduce-scatter"}
    if argument == "size=l,resolution=32" and topology == "v5e:4x4":
        assert found["mfu_ceiling"] > 0.6
        # A gather for each of a layer's six matrices, forward and again in the recomputation; the gains of the norms,
        # and the sums of all gradients, are all-reduces.
        assert found["collectives"]["all-gather"]["in_loops"] == 12


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
def test_two_slices_take_half_the_compute_and_exchange_their_gradients():
    one, two = (
        json.loads(plan("size=s,resolution=32", "--json", "--topology=v5e:4x4", *flags).stdout)
        for flags in ((), ("--slices=2",))
    )
    assert two["mesh"] == {"slice": 2, "data": 16, "model": 1}
    assert two["devices"] == 32
    assert two["seconds"]["compute"] == pytest.approx(one["seconds"]["compute"] / 2)
    assert "network" not in one["seconds"]
    assert two["network_bytes_per_device"] == pytest.approx(2 * 76_006_912 / 16)  # a share of the gradients, bfloat16
    # All parameters are on each slice.
    assert two["bytes_per_device"]["arguments"] == pytest.approx(one["bytes_per_device"]["arguments"], rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
def test_a_chip_without_a_data_sheet_gets_memory_and_no_times():
    found = json.loads(
        plan("size=s,resolution=32", "--json", "--topology=v3:4x4", "--config.model.attention=blockwise").stdout
    )
    assert found["chip"] == "TPU v3"
    assert found["bytes_per_device"]["total"] > 0
    assert found["seconds"] is found["fits"] is found["mfu_ceiling"] is None


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
def test_the_newest_chip_and_a_codec_are_planned():
    found = json.loads(plan("size=s,resolution=32", "--json", "--topology=tpu7x:2x2x1").stdout)
    assert (found["chip"], found["devices"]) == ("TPU7x", 8)
    assert found["fits"]
    command = ["-m", "igpt_jax", "plan", "--config=experiments/codes.py", "--json", "--topology=v5e:2x2"]
    found = json.loads(subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT).stdout)
    assert found["fits"]
    assert found["seconds"]["compute"] > 0


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
@pytest.mark.parametrize("what", ["features", "sample"])
def test_the_other_programs_gather_each_weight_once(what):
    finished = plan("size=s,resolution=32", f"--what={what}", "--json")
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["fits"]
    gathers = found["collectives"]["all-gather"]
    assert gathers["in_loops"] == (6 if what == "features" else 0)  # drawing has all weights whole from the start


@pytest.mark.slow
@pytest.mark.skipif(not HAS_LIBTPU, reason="needs libtpu")
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--topology=v9:2x2"], "--topology=v9:2x2: "),
        (["--what=tea"], "--what=tea is not a program; choose one of train, features, sample"),
        (
            ["--config.data.batch_size=100"],
            "100 is not divisible by the 16 devices of the data axis; set it to 96",
        ),
        (["--config.parallel.model=3"], "model=3 does not match 16 devices; set parallel.data=8 and parallel.model=2"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(flags, message):
    finished = plan("size=s,resolution=32", *flags)
    assert finished.returncode == 2
    assert message in finished.stderr


@pytest.mark.parametrize(
    ("argument", "rate", "steps", "batch"),
    [
        ("size=s,resolution=32", 3e-3, 1_000_000, 128),
        ("size=l,resolution=48", 1e-2, 1_000_000, 128),
        ("size=xl,resolution=64", 3e-4, 2_000_000, 64),
        ("size=s,resolution=32,objective=bert", 1e-2, 1_000_000, 128),
    ],
)
def test_the_pretraining_configs_are_the_papers(argument, rate, steps, batch):
    config = RunConfig.from_dict(get_config(argument).to_dict())
    assert (config.optimizer.learning_rate, config.steps, config.data.batch_size) == (rate, steps, batch)
    assert config.objective.name == config.model.objective == ("bert" if "bert" in argument else "ar")


@pytest.mark.parametrize(
    "argument", ["size=l,resolution=64", "size=tiny", "sise=s", "size=xl,resolution=64,objective=bert"]
)
def test_a_run_that_the_paper_does_not_have_is_refused(argument):
    with pytest.raises(InputError, match=r"Table 5 has no|is not an argument; give size|is not one of s, m, l, xl"):
        get_config(argument)
