"""Measures what torch users get from the same device: training steps and cached sampling of the same networks."""

import functools
import importlib.util
import itertools
import json
import pathlib
import re
import statistics
from typing import Any

import torch

from experiments.accelerator.cases import Case
from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from experiments.benchmark.minimal import MinimalImageGPT, random_weights, trainer
from igpt_jax.config import ModelConfig

LEARNING_RATE = 1e-4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def cases(sizes: Sizes, directory: pathlib.Path) -> dict[str, Case]:
    """The cases by name; the training of a peer is compared with our fastest one in `directory`, if it has any."""
    torch.set_float32_matmul_precision("high")
    measurements = {
        f"train {name}, torch.compile": functools.partial(_train, name, sizes, _fastest(directory, name))
        for name in ("S", "L")
    }
    draws = [_draw_minimal, *([_draw_transformers] if importlib.util.find_spec("transformers") else [])]
    for name, draw in itertools.product(("S", "L"), draws):
        for images in sizes.peer_drawn:
            case = f"draw {name}, batch {images}, {draw.__name__.removeprefix('_draw_')}"
            measurements[case] = functools.partial(draw, sizes.models[name], images, sizes.peer_tokens)
    return {name: Case(lambda _, run=run: run()) for name, run in measurements.items()}


def _fastest(directory: pathlib.Path, name: str) -> dict[str, Any]:
    """The figures of our fastest training of a network, without compiler options; {} if there are none."""
    path = directory / "training.json"
    measured = json.loads(path.read_text())["cases"] if path.exists() else {}
    plain = re.compile(f"{name}, remat [a-z]+(, unrolled)?")
    figures = [
        outcome["figures"] for case, outcome in measured.items() if plain.fullmatch(case) and "figures" in outcome
    ]
    return max(figures, key=lambda its: its["images/s"], default={})


def _train(name: str, sizes: Sizes, ours: dict[str, Any]) -> dict[str, Any]:
    """Trains the minimal model under torch.compile, with bfloat16 matmuls and fused Adam."""
    config, images = sizes.models[name], sizes.peer_images[name]
    model = torch.compile(MinimalImageGPT(config, random_weights(config, DEVICE), torch.bfloat16), dynamic=False)
    tokens_bt = torch.randint(config.vocabulary, (images, config.context), device=DEVICE)
    step = trainer(model, tokens_bt, config.vocabulary, LEARNING_RATE, fused=DEVICE == "cuda")
    compile_seconds = seconds(step)
    step()
    speed = images / statistics.median(seconds(step) for _ in range(2 * sizes.repeats))
    figures = {"images": images, "images/s": speed, "compile seconds": compile_seconds, "loss": step()}
    if ours:
        figures |= {"our images": ours["images"], "ours over torch": ours["images/s"] / speed}
    return figures


def _draw_minimal(config: ModelConfig, images: int, positions: int) -> dict[str, Any]:
    """Samples the first positions of images with the minimal model; weights and cache are in bfloat16."""
    model = MinimalImageGPT(config, random_weights(config, DEVICE), torch.bfloat16).to(torch.bfloat16)

    def draw() -> torch.Tensor:
        return model.draw(images, positions).cpu()

    draw()
    return {"tokens/s": images * positions / seconds(draw), "positions": positions}


def _draw_transformers(config: ModelConfig, images: int, positions: int) -> dict[str, Any]:
    """Samples the first positions of images with transformers' cached `generate`, in bfloat16."""
    from experiments.benchmark.peers import image_gpt

    peer = image_gpt(config).to(DEVICE, torch.bfloat16).eval()
    start_b1 = torch.full((images, 1), config.vocabulary, device=DEVICE)

    @torch.no_grad()
    def draw() -> torch.Tensor:
        drawn_bt = peer.generate(start_b1, max_length=positions + 1, do_sample=True, top_k=0, use_cache=True)
        return drawn_bt.cpu()

    draw()
    return {"tokens/s": images * positions / seconds(draw), "positions": positions}
