"""What torch users get from the same device: training steps and cached drawing of the same networks."""

import functools
import importlib.util
import json
import pathlib
import statistics
import time
from collections.abc import Callable

import torch

from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from experiments.benchmark.minimal import MinimalImageGPT, random_weights, trainer
from igpt_jax.config import ModelConfig

LEARNING_RATE = 1e-4
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def cases(sizes: Sizes, directory: pathlib.Path) -> dict[str, Callable[[], dict]]:
    """Name -> what measures a peer; trained with the batches that ours were fastest with."""
    torch.set_float32_matmul_precision("high")
    found = {}
    for name in ("S", "L"):
        images, ours = _fastest(directory, name) or (sizes.images, None)
        found[f"train {name}, torch.compile"] = functools.partial(
            _train, sizes.models[name], images, ours, sizes.repeats
        )
    for name in ("S", "L"):
        for drawn in sizes.drawn[:2]:
            case = f"draw {name}, batch {drawn}, minimal torch"
            found[case] = functools.partial(_draw_minimal, sizes.models[name], drawn, sizes.peer_tokens)
    for name in ("S", "L") if importlib.util.find_spec("transformers") else ():
        for drawn in sizes.drawn[:2]:
            case = f"draw {name}, batch {drawn}, transformers"
            found[case] = functools.partial(_draw_transformers, sizes.models[name], drawn, sizes.peer_tokens)
    return found


def _fastest(directory, name):
    """Images of the batch, and images/s, of our fastest training of a network on this machine."""
    path = directory / "training.json"
    measured = json.loads(path.read_text())["cases"] if path.exists() else {}
    speeds = [
        (outcome["figures"]["images/s"], outcome["figures"]["images"])
        for case, outcome in measured.items()
        if case.startswith(f"{name},") and "figures" in outcome
    ]
    return max(speeds)[::-1] if speeds else None


def _train(config: ModelConfig, images: int, ours: float | None, repeats: int) -> dict:
    """A compiled minimal model, scaled_dot_product_attention, bfloat16 products and fused Adam."""
    model = MinimalImageGPT(config, random_weights(config, DEVICE), torch.bfloat16)
    compiled = torch.compile(model)
    fitting = images
    while True:
        tokens_bt = torch.randint(config.vocabulary, (fitting, config.context), device=DEVICE)
        step = trainer(compiled, tokens_bt, config.vocabulary, LEARNING_RATE, fused=DEVICE == "cuda")
        start = time.perf_counter()
        try:
            step()
            compile_seconds = time.perf_counter() - start
            step()
            step_seconds = statistics.median(seconds(step) for _ in range(2 * repeats))
            break
        except torch.OutOfMemoryError:
            if fitting == 1:
                raise
            fitting = fitting * 3 // 4
        # Outside of the handler, whose traceback holds the tensors.
        torch.cuda.empty_cache()
    figures = {"images": fitting, "images/s": fitting / step_seconds, "compile seconds": compile_seconds}
    if ours:
        figures |= {"ours, images/s": ours, "ours over torch": ours * step_seconds / fitting}
    return figures | {"loss": step()}


def _draw_minimal(config: ModelConfig, images: int, positions: int) -> dict:
    """The first positions of images, weights and cache in bfloat16."""
    model = MinimalImageGPT(config, random_weights(config, DEVICE), torch.bfloat16).to(torch.bfloat16)

    def draw():
        return model.draw(images, positions).cpu()

    draw()
    return {"tokens/s": images * positions / seconds(draw), "positions": positions}


def _draw_transformers(config: ModelConfig, images: int, positions: int) -> dict:
    """transformers' cached `generate` of the first positions, bfloat16."""
    from experiments.benchmark.peers import image_gpt

    peer = image_gpt(config).to(DEVICE, torch.bfloat16).eval()
    start_b1 = torch.full((images, 1), config.vocabulary, device=DEVICE)

    @torch.no_grad()
    def draw():
        drawn_bt = peer.generate(start_b1, max_length=positions + 1, do_sample=True, top_k=0, use_cache=True)
        return drawn_bt.cpu()

    draw()
    return {"tokens/s": images * positions / seconds(draw), "positions": positions}
