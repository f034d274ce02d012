"""Aliases for the types that most functions of the package share."""

from typing import Any

import jax
import numpy as np

# The parameters of a model: a nested dict of arrays, as `ImageGPT.init` returns under "params".
Params = dict[str, Any]
# A batch on the devices, and one in the host's memory. "tokens" are (b, t) int32; "label" (b,) int32 and "mask"
# (b, t) bool (True: hidden) are there where they are needed.
Batch = dict[str, jax.Array]
HostBatch = dict[str, np.ndarray]
