"""Measures sampling of whole images beside transformers' cached `generate`, with the same weights."""

import dataclasses
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from jax.sharding import Mesh

import igpt_jax as ig
from experiments.benchmark.measure import Result, Side, compare, seconds
from experiments.benchmark.peers import image_gpt, save
from igpt_jax.config import ModelConfig, ParallelConfig
from igpt_jax.generate.complete import complete
from igpt_jax.generate.sample import SEGMENT, Drawn, Sampler
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.types import Params

CONFIG = ModelConfig(layers=4, width=256, heads=4)
PEER = "transformers' generate, cached"
# For `windows`: a network that learns photographs in a few minutes, and the positions per pass of each batch.
LEARNED: dict[str, Any] = {
    "steps": 400,
    "model": dataclasses.asdict(CONFIG) | {"unroll": CONFIG.layers},
    "data": {"batch_size": 8},
    "optimizer": {
        "name": "muon",
        "learning_rate": 1e-3,
        "muon_learning_rate": 0.03,
        "schedule": "wsd",
        "warmup_epochs": 0.1,
    },
}
WINDOWS = {1: 4, 8: 2, 32: 2}


def sample() -> list[Result]:
    """Samples batches of 8 and 32 images of 1,024 tokens greedily, in float32.

    The results also have our speed in bfloat16, and the remarks the bound that memory bandwidth sets and the time of
    half an image.
    """
    peer = image_gpt(CONFIG, std=0.05).eval()  # large enough that no two colors have almost equal logits
    with tempfile.TemporaryDirectory() as directory:
        save(peer, directory)
        mesh = make_mesh(ParallelConfig())
        model, params, _ = ig.load(directory, mesh=mesh)
    return [result for batch in (8, 32) for result in _sample(model, params, mesh, peer, batch)]


def _sample(
    model: ig.ImageGPT, params: Params, mesh: Mesh, peer: transformers.ImageGPTForCausalImageModeling, batch: int
) -> list[Result]:
    context, name = CONFIG.context, f"sample, batch {batch}, 1,024 tokens"
    start = torch.full((batch, 1), CONFIG.vocabulary)
    drawn = {}

    def theirs() -> None:
        with torch.no_grad():
            tokens = peer.generate(start, max_length=context + 1, do_sample=False, use_cache=True)
        drawn["theirs"] = tokens[:, 1:].numpy()

    def ours(model: ig.ImageGPT = model, given: int = 0) -> None:
        given_bt = np.zeros((1, given), np.int32)
        greedy = Sampler(temperature=0)
        drawn["ours"] = complete(model, params, given_bt, n=batch, seed=0, mesh=mesh, sampler=greedy).tokens[0]

    ours()
    bound = batch * context / (_bytes_read(batch) / _bandwidth())
    sides = {PEER: Side(theirs, batch * context)}
    (result,) = compare(name, "tokens/s", Side(ours, batch * context), sides, "", rounds=3, warm=False)
    same = (drawn["ours"] == drawn["theirs"]).all(axis=1).sum()
    half = _best(lambda: ours(given=context // 2)) / _best(ours)
    remark = (
        f"{same} of {batch} images equal in all tokens; reading cache and weights alone allows {bound:,.0f} tokens/s, "
        f"{bound / result.peer:.1f} times the peer; half an image takes {half:.2f} of a whole one's time"
    )
    narrow = ig.ImageGPT(dataclasses.replace(model.config, dtype="bfloat16"))
    speed = batch * context / _best(lambda: ours(narrow))
    return [
        dataclasses.replace(result, remark=remark),
        Result(f"{name}, bfloat16", "tokens/s", speed, remark="products and cache in bfloat16"),
    ]


def windows() -> list[Result]:
    """Samples images of 1,024 tokens in windows of guesses, beside one by one and beside transformers.

    How many tokens a pass decides depends on what the network has learned, so it first learns photographs.
    """
    mesh = make_mesh(ParallelConfig())
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as parent:
        directory = f"{parent}/weights"
        ig.save(ig.pretrain("photographs", **LEARNED), directory, to="huggingface")
        peer = transformers.ImageGPTForCausalImageModeling.from_pretrained(directory).eval()
        model, params, _ = ig.load(directory, mesh=mesh)
    return [result for batch in WINDOWS for result in _windows(model, params, mesh, peer, batch)]


def _windows(
    model: ig.ImageGPT, params: Params, mesh: Mesh, peer: transformers.ImageGPTForCausalImageModeling, batch: int
) -> list[Result]:
    context, window, nothing_bt = CONFIG.context, WINDOWS[batch], np.zeros((1, 0), np.int32)

    def draw(window: int) -> Drawn:
        return complete(model, params, nothing_bt, n=batch, seed=0, mesh=mesh, window=window)

    def theirs() -> None:
        start = torch.full((batch, 1), CONFIG.vocabulary)
        with torch.no_grad():
            peer.generate(start, max_length=context + 1, do_sample=True, top_k=0, use_cache=True)

    windowed = draw(window)
    equal = (windowed.tokens == draw(1).tokens).mean()
    sides = {"one position per pass": Side(lambda: draw(1), batch * context), PEER: Side(theirs, batch * context)}
    remark = f"{windowed.tokens_per_pass:.2f} tokens a pass; {equal:.4%} of the tokens are those of one by one"
    name = f"sample in windows of {window}, batch {batch}, 1,024 tokens"
    return compare(name, "tokens/s", Side(lambda: draw(window), batch * context), sides, remark, rounds=3, warm=False)


def _best(function: Callable[[], object]) -> float:
    """The shorter time of two calls, after one to warm up."""
    function()
    return min(seconds(function) for _ in range(2))


def _bytes_read(batch: int) -> int:
    """Bytes of float32 that sampling reads: the weights in every step, and the cache as far as it has grown."""
    c = CONFIG
    lengths = sum(min(c.context, (position // SEGMENT + 1) * SEGMENT) for position in range(c.context))
    cache = batch * c.layers * 2 * c.width * lengths
    weights = c.context * (c.layers * 12 * c.width**2 + c.width * c.vocabulary)
    return 4 * (cache + weights)


def _bandwidth() -> float:
    """Bytes per second that a sum over 512 MiB reads, on all cores."""
    array, total = jnp.ones(2**27), jax.jit(jnp.sum)
    return array.nbytes / _best(lambda: total(array).block_until_ready())
