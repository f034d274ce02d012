"""Measures how soon a held-out loss is reached: `ig.pretrain` with the modern recipe, against a torch user's training.

    python -m experiments.time_to_loss emoji --out=results/time_to_loss

The torch user trains transformers' ImageGPT under torch.compile, by AdamW with a weight decay of 0.1, a warm-up and a
cosine, and clips gradients to a norm of 1.  Both sides have a network of the same shape, the same palette, the same
stream of augmented images, float32, and all cores of a CPU.

1. On held-out training images, it searches the learning rate of the torch user, and Muon's of the modern recipe at a
   third of the steps.  Then it looks for the fewest steps with which the modern recipe is as good as the torch user.
2. With three seeds, both train in turn, each in a new process, and are measured on test images; or on new squares, if
   they learn photographs (held_out_loss.py).  The time is that of the whole process, with imports and compilation, but
   without the measuring.  The torch user's tokens lie in memory, while ours come from the input pipeline.

The losses of the search are kept in OUT/DATA-search.json, and are not measured again.  So the search can be made beside
other work, and the comparison later, when the machine is quiet.

Needs the extra `test`.  It takes most of an hour on two CPU cores.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import ml_collections
import numpy as np

import igpt_jax as ig
from experiments import modern
from experiments.arguments import local_directory
from experiments.benchmark.measure import machine
from experiments.held_out_loss import SQUARES, new_squares
from experiments.scheduler import RunFailed, exit_status
from experiments.tables import write_json
from igpt_jax.config import RunConfig
from igpt_jax.data.augment import augmentations
from igpt_jax.data.pipeline import batches
from igpt_jax.data.sources import load_source
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.memory import keep_freed_memory
from igpt_jax.search import best, search

DATA = ("emoji", "photographs")
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 16e-3)  # of the torch user, tried upwards until one is worse than the one before
LENGTHS = (8, 6, 5, 4, 3, 2)  # the modern recipe is tried with the torch user's steps divided by these
WEIGHT_DECAY = 0.1
SEEDS, SEARCHING_SEED = (0, 1, 2), 10


def our_config(data: str, steps: int, muon_rate: float) -> ml_collections.ConfigDict:
    """The config of our side: modern.py's, with weight decay and with flips of emoji."""
    config = modern.get_config(f"data={data},steps={steps},muon_rate={muon_rate:g}")
    config.data.fold_validation = False
    config.data.augmentation = "flip" if data == "emoji" else "auto"
    config.optimizer.weight_decay = WEIGHT_DECAY
    return config


def train_ours(
    config: ml_collections.ConfigDict, palette: Tokenizer, held_out_bhwc: np.ndarray, seed: int
) -> tuple[float, float]:
    """Trains our side.

    Args:
      config: from `our_config`.
      palette: encodes the images.
      held_out_bhwc: (b, r, r, 3) uint8 RGB in 0..255, to measure on.
      seed: of the training.

    Returns:
      The held-out nats per token, and the seconds that measuring them took.
    """
    options = config.to_dict() | {"seed": seed, "palette": palette}
    model = ig.pretrain(config.data.name, **options)
    start = time.perf_counter()
    nats = float(ig.likelihood(model, held_out_bhwc, batch_size=256).mean())
    return nats, time.perf_counter() - start


class Comparison:
    """Both sides on one data set."""

    def __init__(self, data: str, directory: pathlib.Path, steps: int) -> None:
        """Fits the palette.

        Args:
          data: one of `DATA`.
          directory: for the torch user's tokens.
          steps: of the torch user.
        """
        self.data, self.steps, self._directory = data, steps, directory
        config = RunConfig.from_dict(our_config(data, steps, 0).to_dict())
        self._shape, self._pixels = config.model, config.data
        images, _ = ig.load_images(data, resolution=self._shape.resolution)
        self._palette = ig.fit_palette(images, self._shape.vocabulary)
        self._held_out = dict.fromkeys(SEEDS, self._images(searching=False))
        self._held_out[SEARCHING_SEED] = self._images(searching=True)

    def ours(self, steps: int, muon_rate: float, seed: int) -> tuple[float, float]:
        """Trains our side in a new process; returns its nats per token and its seconds."""
        arguments = our_config(self.data, steps, muon_rate), self._palette, self._held_out[seed], seed
        start, context = time.perf_counter(), multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, initializer=keep_freed_memory) as pool:
            nats, measuring = pool.submit(train_ours, *arguments).result()
        return nats, time.perf_counter() - start - measuring

    def torch(self, rate: float, seed: int) -> tuple[float, float]:
        """Trains the torch user's side in a new process; returns its nats per token and its seconds."""
        c = self._shape
        network = {"vocab_size": c.vocabulary + 1, "n_positions": c.context}
        network |= {"n_embd": c.width, "n_layer": c.layers, "n_head": c.heads}
        options = [self._tokens(seed), json.dumps(network), rate, modern.WARMUP_STEPS, WEIGHT_DECAY, seed]
        command = [sys.executable, "-m", "experiments.torch_user", *map(str, options)]
        start = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            last = ended.stderr.strip().splitlines()[-1:] or [f"status {ended.returncode}"]
            raise RunFailed(f"torch_user.py failed: {last[0][:300]}")
        result = json.loads(ended.stdout.splitlines()[-1])
        return result["nats"], time.perf_counter() - start - result["measuring"]

    def _images(self, *, searching: bool) -> np.ndarray:
        if self.data == SQUARES:
            return new_squares(self._shape.resolution, searching=searching)
        split = "validation" if searching else "test"
        return ig.load_images(self.data, split, resolution=self._shape.resolution)[0]

    def _tokens(self, seed: int) -> pathlib.Path:
        """The file of the torch user's tokens: as many batches of our input pipeline as it has steps."""
        path = self._directory / f"seed{seed}.npz"
        if not path.exists():
            random, _ = augmentations(self._pixels, self._shape.resolution)
            source = load_source(self._pixels, "train")
            stream = batches(source, self._palette, random, seed=seed, batch_size=self._pixels.batch_size)
            training_sbt = np.stack([batch["tokens"] for batch in itertools.islice(stream, self.steps)])
            held_out_nt = self._palette.encode(self._held_out[seed]).reshape(-1, self._shape.context)
            np.savez(path, training=training_sbt, held_out=held_out_nt)
        return path


def measure(options: argparse.Namespace, command: str) -> None:
    """Searches, compares, prints, and writes OUT/DATA-search.json and OUT/DATA.json.

    Args:
      options: the parsed command line.
      command: the command line as text, for the results.
    """
    with tempfile.TemporaryDirectory() as directory:
        comparison = Comparison(options.data, pathlib.Path(directory), options.steps)
        results = compare(comparison, options.out / f"{options.data}-search.json")
    write_json(
        options.out / f"{options.data}.json",
        {"command": command, "data": options.data, "machine": machine(), **results},
    )


def compare(comparison: Comparison, records: pathlib.Path) -> dict[str, Any]:
    """Searches the rates and our steps, and trains both sides with every seed.

    Args:
      comparison: trains and measures both sides.
      records: the file of held-out losses that the search has measured, which need not exist.

    Returns:
      What was chosen, and losses and times of all seeds.
    """
    tried: dict[str, float] = json.loads(records.read_text()) if records.exists() else {}

    def score(name: str, train: Callable[[], tuple[float, float]]) -> float:
        if name not in tried:
            tried[name], took = train()
            print(f"{name}: {tried[name]:.4f} nats per token in {took:.0f} s", flush=True)
            write_json(records, tried)
        return -tried[name]

    def torch_score(rate: float) -> float:
        name = f"torch, {comparison.steps:,} steps, rate {rate:g}"
        return score(name, lambda: comparison.torch(rate, SEARCHING_SEED))

    def our_score(steps: int, muon_rate: float) -> float:
        name = f"ours, {steps:,} steps, Muon's rate {muon_rate:g}"
        return score(name, lambda: comparison.ours(steps, muon_rate, SEARCHING_SEED))

    torch_scores = search(RATES, torch_score)
    rate, third = best(torch_scores), comparison.steps // 3
    muon_rate = best(search(modern.MUON_RATES, lambda value: our_score(third, value)))
    lengths = [comparison.steps // length for length in LENGTHS]
    steps = next((steps for steps in lengths if our_score(steps, muon_rate) >= torch_scores[rate]), comparison.steps)
    rows = []
    for seed in SEEDS:
        torch, ours = comparison.torch(rate, seed), comparison.ours(steps, muon_rate, seed)
        rows.append(
            {"seed": seed, "torch_nats": torch[0], "nats": ours[0], "torch_seconds": torch[1], "seconds": ours[1]}
        )
        print(
            f"seed {seed}: torch {torch[0]:.4f} nats per token in {torch[1]:.0f} s, "
            f"ours {ours[0]:.4f} in {ours[1]:.0f} s: {torch[1] / ours[1]:.2f} times as fast",
            flush=True,
        )
    speed = statistics.median(row["torch_seconds"] / row["seconds"] for row in rows)
    chosen = {"torch_rate": rate, "torch_steps": comparison.steps, "muon_rate": muon_rate, "steps": steps}
    return chosen | {"times_as_fast": speed, "seeds": rows}


def main(arguments: list[str]) -> int:
    """Runs the command line.

    Returns:
      The exit status: 0 for success, 1 if torch's training failed, 2 for bad input, 130 if interrupted.
    """
    parser = argparse.ArgumentParser("experiments.time_to_loss", description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--out", type=local_directory, required=True, help="directory of the results")
    parser.add_argument("--steps", type=int, default=1500, help="of the torch user; default: 1,500")
    options = parser.parse_args(arguments)
    command = "python -m experiments.time_to_loss " + " ".join(arguments)
    return exit_status("experiments.time_to_loss", lambda: measure(options, command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
