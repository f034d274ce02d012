"""Trains transformers' ImageGPT as a torch user would: torch.compile, AdamW, a warm-up and a cosine, clipped gradients.

time_to_loss.py runs this file in a process of its own; it imports nothing of this project.
"""

import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
import transformers


def main(path: str, network: str, rate: str, warmup_steps: str, weight_decay: str, seed: str) -> None:
    """Trains, measures, and prints JSON: the held-out "nats" per token, and the "measuring" in seconds.

    Args:
      path: a file of NumPy with "training", the tokens of every step, (s, b, t), and "held_out", (n, t).
      network: JSON, the arguments of transformers' ImageGPTConfig; the last token of its vocabulary is the start token.
      rate: peak learning rate.
      warmup_steps: of the learning rate.
      weight_decay: of AdamW.
      seed: of the initial weights.
    """
    torch.manual_seed(int(seed))
    with np.load(path) as tokens:
        training_sbt, held_out_nt = (torch.from_numpy(tokens[name]).long() for name in ("training", "held_out"))
    no_dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = transformers.ImageGPTConfig(**json.loads(network), **no_dropout)
    model = torch.compile(transformers.ImageGPTForCausalImageModeling(config))

    def loss(tokens_bt: torch.Tensor) -> torch.Tensor:
        start_b1 = torch.full((len(tokens_bt), 1), config.vocab_size - 1)
        logits_btv = model(torch.cat([start_b1, tokens_bt[:, :-1]], dim=1)).logits
        return F.cross_entropy(logits_btv.flatten(0, 1), tokens_bt.flatten())

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=float(rate), betas=(0.9, 0.95), weight_decay=float(weight_decay)
    )
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, int(warmup_steps), len(training_sbt))
    for tokens_bt in training_sbt:
        optimizer.zero_grad(set_to_none=True)
        loss(tokens_bt).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()

    start = time.perf_counter()
    with torch.no_grad():
        batches = held_out_nt.split(training_sbt.shape[1])
        nats = sum(loss(batch).item() * len(batch) for batch in batches) / len(held_out_nt)
    print(json.dumps({"nats": nats, "measuring": time.perf_counter() - start}))


if __name__ == "__main__":
    main(*sys.argv[1:])
