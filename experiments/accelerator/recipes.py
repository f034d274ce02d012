"""Measures how soon the modern recipe reaches a held-out loss, beside torch's AdamW with a cosine (part `peers`).

Both sides train S on random crops of photographs, with the same batch size, and are measured on other parts of them.
Seconds are those of the training steps; compilation is stated apart.
"""

import dataclasses
import pathlib
from typing import Any

import jax

from experiments.accelerator.cases import Case
from experiments.accelerator.data import crops
from experiments.accelerator.learning import learn
from experiments.accelerator.sizes import Sizes
from experiments.recipe import INGREDIENTS, RECIPES
from igpt_jax.config import DataConfig, ParallelConfig, RunConfig
from igpt_jax.evaluate.forward import in_batches, mean_nats
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.parallel.mesh import make_mesh
from igpt_jax.train.state import init_params


def cases(sizes: Sizes, _: pathlib.Path) -> dict[str, Case]:
    """The cases by name: the modern recipe with fewer steps than torch."""
    return {
        f"learn S, modern recipe, {steps} steps": Case(lambda _, steps=steps: _learn(sizes, steps))
        for steps in sizes.modern_steps
    }


def _learn(sizes: Sizes, steps: int) -> dict[str, Any]:
    run, mesh = _modern(sizes, steps), make_mesh(ParallelConfig(), jax.devices()[:1])
    model = ImageGPT(run.model)
    training_nt, held_out_nt = crops(run.model)
    learned = learn(run, init_params(model, 0, mesh), training_nt, mesh)
    loss = mean_nats(model, learned.params, in_batches({"tokens": held_out_nt}, sizes.race_images), mesh)
    return {"held-out loss": loss, "seconds": learned.seconds, "compile seconds": learned.compile_seconds}


def _modern(sizes: Sizes, steps: int) -> RunConfig:
    """The run of S in the modern recipe, with the weight decay of torch's AdamW."""
    options = {key: value for name in RECIPES["modern"] for key, value in INGREDIENTS[name].items()}

    def of(part: str) -> dict[str, Any]:
        return {key.removeprefix(part): value for key, value in options.items() if key.startswith(part)}

    plain = RunConfig(
        steps=steps,
        model=dataclasses.replace(sizes.models["S"], remat="dots", **of("model.")),
        data=DataConfig(batch_size=sizes.race_images),
    )
    optimizer = dataclasses.replace(plain.optimizer, learning_rate=3e-3, weight_decay=0.1, **of("optimizer."))
    return dataclasses.replace(plain, optimizer=optimizer)
