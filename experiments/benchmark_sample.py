"""Sampling whole images beside transformers' cached `generate`: the same weights, the same tokens, in one run.

    python -m experiments.benchmark_sample --batch=32

Four layers of width 256, four heads, 1,024 positions, float32, greedy, so that both must give the same tokens; that is
checked on what was timed.  Rounds alternate between the two, and the ratio of each round is what means something.
Beside them: the cost of completing half an image, and the speed at which this machine could read weights and cache
from memory, which bounds decoding.  transformers comes with the extra `test`.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

import igpt_jax as ig
from igpt_jax.generate.sample import SEGMENT, Sampler, image_keys, sample
from igpt_jax.memory import keep_freed_memory

LAYERS, WIDTH, HEADS, RESOLUTION, COLORS = 4, 256, 4, 32, 512


def main(arguments: list[str]) -> int:
    """Prints what it measures.  Returns the exit status."""
    parser = argparse.ArgumentParser("experiments.benchmark_sample", description="Measures sampling beside its peer.")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args(arguments)
    keep_freed_memory()
    measure(options.batch, options.rounds)
    return 0


def measure(batch: int, rounds: int) -> None:
    """Times both sides in turns, and checks that they agree."""
    import torch

    with tempfile.TemporaryDirectory() as directory:
        peer = _peer()
        peer.save_pretrained(directory)
        model, params, _ = ig.load(directory)
    start = torch.full((batch, 1), COLORS)
    context = model.config.context

    def theirs():
        with torch.no_grad():
            return peer.generate(start, max_length=context + 1, do_sample=False, use_cache=True)[:, 1:].numpy()

    def ours(given=0, sampler=Sampler(temperature=0)):  # noqa: B008 - frozen
        given_bt = np.zeros((batch, given), np.int32)
        return np.asarray(sample(model, params, image_keys(0, batch), given_bt, sampler))

    ours()
    tokens_bt, ratios = None, []
    for _ in range(rounds):
        our_seconds, tokens_bt = _seconds(ours)
        their_seconds, expected_bt = _seconds(theirs)
        ratios.append(their_seconds / our_seconds)
        speeds = [batch * context / seconds for seconds in (our_seconds, their_seconds)]
        print(f"batch {batch}, tokens/s: {speeds[0]:,.0f}; transformers {speeds[1]:,.0f}; {ratios[-1]:.2f} times")
    same = (tokens_bt == expected_bt).all(axis=1).sum()
    print(f"median ratio {statistics.median(ratios):.2f}; {same} of {batch} images equal in all {context} tokens")

    whole, half = (_completing(ours, given) for given in (0, context // 2))
    print(f"at temperature 1: {batch * context / whole:,.0f} tokens/s; half an image in {half / whole:.2f} of its time")
    read = _bytes_read(model.config, batch)
    bandwidth = _bandwidth()
    bound = batch * context / (read / bandwidth)
    print(f"{read / 1e9:.0f} GB of cache and weights at {bandwidth / 1e9:.1f} GB/s: at most {bound:,.0f} tokens/s")


def _completing(ours, given):
    """Seconds, the better of two, to draw what `given` positions leave."""
    ours(given, Sampler())
    return min(_seconds(lambda: ours(given, Sampler()))[0] for _ in range(2))


def _peer():
    """A transformers model whose weights are drawn wide enough that no two colours tie."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.ImageGPTConfig(
        vocab_size=COLORS + 1, n_positions=RESOLUTION**2, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS
    )
    peer = transformers.ImageGPTForCausalImageModeling(config).eval()
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.05 if "h." in name else 0.3)
    return peer


def _bytes_read(config, batch):
    """Of weights in every step, and of the cache as far as it has grown, float32."""
    lengths = sum(min(config.context, (position // SEGMENT + 1) * SEGMENT) for position in range(config.context))
    cache = batch * config.layers * 2 * config.width * lengths
    weights = config.context * (config.layers * 12 * config.width**2 + config.width * config.vocabulary)
    return 4 * (cache + weights)


def _bandwidth():
    """Bytes a second that a sum over 512 MiB reads, on all cores."""
    array = jnp.ones(2**27)
    total = jax.jit(jnp.sum)
    total(array).block_until_ready()
    return array.nbytes / min(_seconds(lambda: total(array).block_until_ready())[0] for _ in range(5))


def _seconds(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
