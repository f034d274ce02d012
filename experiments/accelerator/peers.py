"""Measures what torch users get from the same device: training steps and cached sampling of the same networks."""

import functools
import importlib.util
import itertools
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import torch

from experiments.accelerator.cases import Case
from experiments.accelerator.data import crops
from experiments.accelerator.results import Results
from experiments.accelerator.sizes import Sizes
from experiments.benchmark.measure import seconds
from experiments.benchmark.minimal import MinimalImageGPT, cross_entropy, previous_tokens, random_weights, trainer
from igpt_jax.config import ModelConfig

LEARNING_RATE = 1e-4
RATES = (1e-3, 3e-3)  # of AdamW, when S is trained to a loss
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def cases(sizes: Sizes, directory: pathlib.Path) -> dict[str, Case]:
    """The cases by name.

    Raises:
      SystemExit: torch finds no GPU, so on a real accelerator there is nothing to compare.
    """
    platform = Results.open(directory, "peers").content["device"]["platform"]  # JAX itself would take torch's memory
    if DEVICE == "cpu" and platform != "cpu":
        raise SystemExit("peers: torch finds no GPU here, and its figures on a CPU would compare nothing")
    torch.set_float32_matmul_precision("high")
    measurements = {f"train {name}, torch.compile": functools.partial(_train, name, sizes) for name in ("S", "L")}
    draws = [_draw_minimal, *([_draw_transformers] if importlib.util.find_spec("transformers") else [])]
    for name, draw in itertools.product(("S", "L"), draws):
        for images in sizes.peer_drawn:
            case = f"draw {name}, batch {images}, {draw.__name__.removeprefix('_draw_')}"
            measurements[case] = functools.partial(draw, sizes.models[name], images, sizes.peer_tokens)
    for rate in RATES:
        measurements[f"learn S, torch's AdamW, rate {rate:g}"] = functools.partial(_learn, sizes, rate)
    return {name: Case(lambda _, run=run: run()) for name, run in measurements.items()}


def _train(name: str, sizes: Sizes) -> dict[str, Any]:
    """Trains the minimal model under torch.compile, with bfloat16 matmuls and fused Adam."""
    config, images = sizes.models[name], sizes.peer_images[name]
    model = torch.compile(MinimalImageGPT(config, random_weights(config, DEVICE), torch.bfloat16), dynamic=False)
    tokens_bt = torch.randint(config.vocabulary, (images, config.context), device=DEVICE)
    step = trainer(model, tokens_bt, config.vocabulary, LEARNING_RATE, fused=DEVICE == "cuda")
    compile_seconds = seconds(step)
    step()
    speed = images / statistics.median(seconds(step) for _ in range(2 * sizes.repeats))
    return {"images": images, "images/s": speed, "compile seconds": compile_seconds, "loss": step()}


def _learn(sizes: Sizes, rate: float) -> dict[str, Any]:
    """Trains S under torch.compile in bfloat16, with AdamW, a warm-up and a cosine; measures it on other crops."""
    torch.manual_seed(0)
    config, images, steps = sizes.models["S"], sizes.race_images, sizes.race_steps
    training_nt, held_out_nt = (torch.from_numpy(tokens).long().to(DEVICE) for tokens in crops(config))
    model = torch.compile(MinimalImageGPT(config, random_weights(config, DEVICE), torch.bfloat16), dynamic=False)
    fused = DEVICE == "cuda"
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused)
    schedule = _warmup_cosine(optimizer, steps)

    def loss(tokens_bt: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(previous_tokens(tokens_bt, config.vocabulary)), tokens_bt)

    def compile_step() -> float:
        gradients = torch.autograd.grad(loss(training_nt[:images]), list(model.parameters()))
        return float(gradients[0].sum())

    def train() -> float:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            nats = loss(training_nt[torch.randint(len(training_nt), (images,), device=DEVICE)])
            nats.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        return nats.item()  # waits for the device

    compile_seconds, training_seconds = seconds(compile_step), seconds(train)
    with torch.no_grad():
        held_out = statistics.mean(loss(tokens_bt).item() for tokens_bt in held_out_nt.split(images))
    return {"held-out loss": held_out, "seconds": training_seconds, "compile seconds": compile_seconds}


def _warmup_cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Raises the learning rate linearly for a tenth of the steps, and then lets it fall to 0 by a cosine."""
    warmup = steps // 10
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup)
    return torch.optim.lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[warmup])


def _draw_minimal(config: ModelConfig, images: int, positions: int) -> dict[str, Any]:
    """Samples the first positions of images with the minimal model; weights and cache are in bfloat16."""
    model = MinimalImageGPT(config, random_weights(config, DEVICE), torch.bfloat16).to(torch.bfloat16)

    def draw() -> torch.Tensor:
        return model.draw(images, positions).cpu()

    return _fastest(draw, images, positions)


def _draw_transformers(config: ModelConfig, images: int, positions: int) -> dict[str, Any]:
    """Samples the first positions of images with transformers' cached `generate`, in bfloat16."""
    from experiments.benchmark.peers import image_gpt

    peer = image_gpt(config).to(DEVICE, torch.bfloat16).eval()
    start_b1 = torch.full((images, 1), config.vocabulary, device=DEVICE)

    @torch.no_grad()
    def draw() -> torch.Tensor:
        drawn_bt = peer.generate(start_b1, max_length=positions + 1, do_sample=True, top_k=0, use_cache=True)
        return drawn_bt.cpu()

    return _fastest(draw, images, positions)


def _fastest(draw: Callable[[], torch.Tensor], images: int, positions: int) -> dict[str, Any]:
    """The speed of the fastest of three calls, after two that warm up."""
    _, _, *timed = (seconds(draw) for _ in range(5))
    return {"tokens/s": images * positions / min(timed), "positions": positions}
