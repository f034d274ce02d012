"""Names for the types that functions pass to each other."""

from typing import Any

import jax
import numpy as np

# A nested dict of arrays, as Flax keeps the parameters of a model.
Params = dict[str, Any]
# A batch on the devices, and one in the host's memory: "tokens" (b, t) int32, and what else an objective needs.
Batch = dict[str, jax.Array]
HostBatch = dict[str, np.ndarray]
