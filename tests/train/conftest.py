"""The run that every interrupted one must equal."""

import jax
import numpy as np
import pytest

from tests.train.runs import metrics_of, train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The last state, and the metrics."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    state = train(workdir)
    return jax.tree.map(np.asarray, state), metrics_of(workdir)
