"""The paper's pretraining runs, with the learning rates of its Table 5 (report, appendix).

    python -m igpt_jax train --config=experiments/table5_pretrain.py:size=s,resolution=32 --workdir=runs/s32

Arguments: size=s|m|l|xl, resolution=32|48|64, objective=ar|bert.  S, M and L: 1M steps of 128 images; XL: 2M steps of
64 (section 3.4).  A TPU slice for each is in tpu/README.md; bfloat16 products, which the paper does not speak of.
L at 48x48 has 0.01 in the table, ten times its rate at 32x32, against the trend of all others: it is taken as printed,
but start with 0.001 too.
"""

import json
import pathlib

import ml_collections

from igpt_jax.config import SIZES, default_config
from igpt_jax.errors import InputError

TABLES = pathlib.Path(__file__).with_name("paper_tables.json")


def get_config(arguments: str = "size=s,resolution=32") -> ml_collections.ConfigDict:
    """One row of Table 5.  Raises InputError where the table has none."""
    given = {"size": "s", "resolution": "32", "objective": "ar"}
    for argument in arguments.split(","):
        name, _, value = argument.partition("=")
        if name not in given:
            raise InputError(f"{argument!r} is not an argument; give {', '.join(given)}, such as size=l,resolution=48")
        given[name] = value
    size, resolution, objective = given.values()
    rates = learning_rates()
    if (size, resolution, objective) not in rates:
        known = "; ".join(f"size={s},resolution={r},objective={o}" for s, r, o in rates)
        raise InputError(f"Table 5 has no size={size},resolution={resolution},objective={objective}; it has {known}")

    config = default_config()
    shape = SIZES[size]
    config.steps, config.data.batch_size = (2_000_000, 64) if size == "xl" else (1_000_000, 128)
    config.checkpoint_every = 5000
    config.model.layers, config.model.width, config.model.heads = shape.layers, shape.width, shape.heads
    config.model.resolution = int(resolution)
    config.objective.name = objective
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.data.name = "imagenet2012"
    config.optimizer.learning_rate = rates[size, resolution, objective]
    return config


def learning_rates() -> dict[tuple[str, str, str], float]:
    """(size, resolution, objective) -> the printed learning rate."""
    rates = {}
    for row in json.loads(TABLES.read_text()):
        if row["table"] == "Table 5":
            objective, resolution = row["setting"].split("; IR ")
            size = row["method"].removeprefix("iGPT-").lower()
            name = {"auto-regressive": "ar", "BERT": "bert"}[objective]
            rates[size, resolution.split("^")[0], name] = row["value"]
    return rates
