"""Ablations of the paper's text: mask rate, heads, joint objective, and the layer that the class head reads.

    python -m experiments.reproduce ablations --scale=miniature --workdir=runs/miniature
    python -m igpt_jax train --config=experiments/ablations.py:ablation=mask35 --workdir=runs/mask35

Arguments: ablation=mask20|mask25|mask30|mask35|tied|nonzero, size=s, scale=paper|miniature.

The paper prints no numbers (sections 2.1, 3.4, 4.5 and the appendix).  It says of mask rates that "20% matched the
performance of 15%, though higher probabilities decreased performance", and it found "small gains" for iGPT-S in untying
the token head from the embeddings and in zero-initializing the heads.  Each ablation makes one change to Table 5's run
of iGPT-S, and is measured by held-out loss and by probes.  A BERT model is probed under masks of the rate that it was
trained with.  The joint objective and the class head on an inner layer come from the runs of Table 3.
"""

import ml_collections

from experiments import scales
from experiments.arguments import read_arguments
from experiments.runs import Job, accuracy, nats_per_token, probe_accuracy
from experiments.table3_finetune import tuning
from experiments.table5_pretrain import pretraining, pretraining_config
from experiments.tables import Row

TITLE = "Ablations"
MASK_RATES = {"mask20": 0.2, "mask25": 0.25, "mask30": 0.3, "mask35": 0.35}
HEADS = {"tied": "token head tied to the embeddings", "nonzero": "heads not zero at first"}


def get_config(arguments: str) -> ml_collections.ConfigDict:
    """The pretraining run of Table 5 with one change.

    Raises:
      InputError: an argument is not known.
    """
    choices = {"ablation": (*MASK_RATES, *HEADS), "size": ("s", "m", "l"), "scale": scales.SCALES}
    chosen = read_arguments(arguments, **choices)
    ablation = chosen["ablation"]
    objective = "bert" if ablation in MASK_RATES else "ar"
    config = pretraining_config(chosen["size"], 32, objective, chosen["scale"])
    config.evaluate.every = config.keep_every = 0
    if ablation in MASK_RATES:
        config.objective.mask_rate = MASK_RATES[ablation]
    elif ablation == "tied":
        config.model.tied_head = True
    else:
        config.model.zero_heads = False
    return config


def pretraining_with(ablation: str, size: str, scale: str) -> Job:
    """The pretraining job of an ablation, a key of `MASK_RATES` or `HEADS`."""
    arguments = (f"ablation={ablation}", f"size={size}", f"scale={scale}")
    return Job(f"pretrain-{ablation}-{size}32", "train", "ablations.py", arguments)


def rows(scale: str) -> list[Row]:
    """Rows of the mask rates of a BERT model, of the heads of an autoregressive one, and of fine-tuning."""
    all_rows = []
    for ablation, rate in {"mask15": 0.15, **MASK_RATES}.items():
        if scale == "miniature" and ablation in ("mask25", "mask30"):
            continue
        job = pretraining_with(ablation, "s", scale) if ablation in MASK_RATES else pretraining("s", "bert", scale)
        printed = {"mask15": "the paper's choice", "mask20": "as 15 %"}.get(ablation, "worse")
        all_rows.append(Row("iGPT-S, BERT", f"{rate:.0%} masked", printed, job=job, read=probe_accuracy, key=ablation))
    for ablation, setting in {"": "as in the paper: untied, zero at first", **HEADS}.items():
        job = pretraining_with(ablation, "s", scale) if ablation else pretraining("s", "ar", scale)
        printed = "a little worse" if ablation else "the paper's choice"
        key = ablation or "heads"
        all_rows += [
            Row("iGPT-S", setting, printed, job=job, read=probe_accuracy, key=key),
            Row("iGPT-S", setting, unit="nats/token", job=job, read=nats_per_token, key=f"{key}-nats"),
        ]
    pretrained = pretraining("l", "ar", scale)
    for variant, (setting, printed) in {
        "joint": ("fine-tuned, L_gen + L_clf", "the paper's choice"),
        "class-only": ("fine-tuned, L_clf alone", "worse"),
        "inner": ("fine-tuned, head on the layer that probes best", "learns faster, ends worse"),
    }.items():
        job = tuning(pretrained, scales.STANDS_FOR, scale, variant)
        all_rows.append(Row("iGPT-L", setting, printed, job=job, read=accuracy, key=variant))
    return all_rows
