"""Every test runs on eight forced CPU devices, and an implicit rank promotion is an error.

XLA compiles without optimizing, since the tests compile thousands of programs and run most of them once: that takes a
seventh of the time.  Compiled programs are shared by all workers and by the commands that tests start.
"""

import os
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the variables
    _quickly = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{_quickly} {os.environ.get('XLA_FLAGS', '')}"
    _compiled = tempfile.TemporaryDirectory()  # is removed when this process ends
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The environment that leads to a server with the bucket `bucket`; this process is led there too."""
    from tests.bucket import served

    with served("bucket") as environment:
        environment["IGPT_JAX_SCRATCH"] = str(tmp_path_factory.mktemp("scratch"))
        os.environ |= environment
        yield environment


@pytest.fixture
def place(server, request):
    """An empty place in the bucket, as text."""
    return f"gs://bucket/{request.node.name.replace('[', '-').replace(']', '')}"
