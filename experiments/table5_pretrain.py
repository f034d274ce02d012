"""Table 5 (appendix of the report): the paper's pretraining runs, with the learning rates that it prints.

    python -m igpt_jax train --config=experiments/table5_pretrain.py:size=s,resolution=32 --workdir=runs/s32
    python -m experiments.reproduce table5 --scale=miniature --workdir=runs/miniature

Arguments: size=s|m|l|xl, resolution=32|48|64, objective=ar|bert, scale=paper|miniature.  S, M and L train for 1M steps
of 128 images, XL for 2M steps of 64 (section 3.4), by Adam with β2 = 0.95, one epoch of warm-up and a cosine to 0.  As
in the paper's final runs, the held-out training images train the model too.  The released code's README reports 2.0895,
2.0614 and 2.0466 nats per token for S, M and L on ImageNet's test images.  The paper had 2,048 TPU cores; tpu/README.md
has a TPU slice for each run.  Matmuls are in bfloat16; the paper's are in float32.

For L at 48x48 the table prints a learning rate of 0.01, ten times the rate at 32x32 and against the trend of all other
rows.  It is used as printed; try 0.001 too.  The paper trained XL on 100 million private web images besides ImageNet;
here it is trained on ImageNet alone.

During training, a few layers near the middle are probed for Figure 3, by SGD with 20,000 steps; Table 2's probes take
1,000,000.
"""

import ml_collections

from experiments import paper, scales
from experiments.arguments import read_arguments
from experiments.runs import Job, Result, nats_per_token
from experiments.tables import Row
from igpt_jax.config import OBJECTIVES
from igpt_jax.errors import InputError

TITLE = "Pretraining: learning rates, and what they led to"
SIZES = ("s", "m", "l", "xl")
OBJECTIVE_NAMES = {"ar": "autoregressive", "bert": "BERT"}
XL_REMARK = "nobody can rerun it: its 100 million web images are private"
SUSPICIOUS = "as printed; suspicious: ten times the rate at 32x32, against the trend"


def get_config(arguments: str = "") -> ml_collections.ConfigDict:
    """The run of one row of Table 5.

    Raises:
      InputError: an argument is not known, or the table has no such row.
    """
    chosen = read_arguments(arguments, size=SIZES, resolution=32, objective=OBJECTIVES, scale=scales.SCALES)
    return pretraining_config(**chosen)


def pretraining_config(size: str, resolution: int, objective: str, scale: str) -> ml_collections.ConfigDict:
    """As `get_config`, from the values of the arguments."""
    rates = paper.learning_rates()
    if (size, resolution, objective) not in rates:
        known = "; ".join(f"size={s},resolution={r},objective={o}" for s, r, o in rates)
        raise InputError(f"Table 5 has no size={size},resolution={resolution},objective={objective}; it has {known}")
    config = scales.base_config(size, resolution, objective, scale)
    config.data.fold_validation = True
    if scale == "paper":
        config.steps = 2_000_000 if size == "xl" else 1_000_000
        config.optimizer.learning_rate = rates[size, resolution, objective]
        config.checkpoint_every = 5000
        layers = config.model.layers
        config.evaluate.probe.layers = tuple(range(layers // 4, 3 * layers // 4 + 1, layers // 8))
        config.evaluate.probe.solver, config.evaluate.probe.steps = "sgd", 20_000
        every = 131_000  # the paper released checkpoints of 131, 262, 524 and 1,000 thousand steps
    else:
        config.steps = scales.STEPS
        config.optimizer.learning_rate = scales.LEARNING_RATE
        config.checkpoint_every = every = config.steps // 4
    if objective == "ar":  # Figure 3 shows autoregressive models only
        config.evaluate.every = config.keep_every = every
    return config


def pretraining(size: str, objective: str, scale: str, resolution: int = 32) -> Job:
    """The job of one row of Table 5."""
    arguments = (f"size={size}", f"resolution={resolution}", f"objective={objective}", f"scale={scale}")
    return Job(f"pretrain-{objective}-{size}{resolution}", "train", "table5_pretrain.py", arguments)


def _in_miniature(size: str, resolution: int, objective: str) -> bool:
    return resolution == 32 and (objective == "ar" or size != "m")


def learning_rate(result: Result) -> float:
    """The peak learning rate that the job trained with."""
    return result.config["optimizer"]["learning_rate"]


def rows(scale: str) -> list[Row]:
    """Every learning rate of the table, and the nats per token that it led to."""
    measured = {entry["method"]: entry["value"] for entry in paper.entries("Figure 3 / README")}
    all_rows = []
    for (size, resolution, objective), rate in paper.learning_rates().items():
        setting = f"{OBJECTIVE_NAMES[objective]}, {resolution}x{resolution}"
        name, remark, job = f"iGPT-{size.upper()}", SUSPICIOUS if resolution == 48 else "", None
        if size == "xl":
            remark = XL_REMARK
        elif scale == "miniature" and not _in_miniature(size, resolution, objective):
            remark = "; ".join(filter(None, [remark, "not in the miniature"]))
        else:
            job = pretraining(size, objective, scale, resolution)
        key = f"{objective}-{size}{resolution}"
        nats = measured.get(name) if (objective, resolution) == ("ar", 32) else None
        all_rows += [
            Row(name, f"{setting}: learning rate", rate, unit="", job=job, read=learning_rate, remark=remark),
            Row(name, setting, nats, unit="nats/token", job=job, read=nats_per_token, key=key, remark=remark),
        ]
    return all_rows
