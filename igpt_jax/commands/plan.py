"""Compiles a config's real program for a TPU slice that this machine does not have, and says what it would need."""

import dataclasses
import importlib.util
import json
import os
import sys
import time
from typing import Any

from absl import flags
from jax.stages import Compiled

os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # it takes no lock against other compilations
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp

from igpt_jax.codes.config import CodecConfig
from igpt_jax.commands.plan_codec import plan_codec
from igpt_jax.commands.plan_words import in_words
from igpt_jax.config import ParallelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.evaluate.features import image_features
from igpt_jax.generate.sample import sample
from igpt_jax.model.attention import fastest_backend
from igpt_jax.model.flops import matmul_parameters
from igpt_jax.model.image_gpt import ImageGPT, count_parameters
from igpt_jax.parallel.budget import Law, recommended
from igpt_jax.parallel.mesh import batch_sharding, check_batch, check_model, logical_axes
from igpt_jax.parallel.plan import (
    Slice,
    count_collectives,
    describe,
    forward_work,
    sampling_work,
    training_work,
)
from igpt_jax.storage import as_path
from igpt_jax.train.compile import compile_train_step
from igpt_jax.train.optimizer import make_optimizer
from igpt_jax.train.state import abstract_params, abstract_state

PROGRAMS = ("train", "features", "sample")


def main(config: RunConfig | CodecConfig, options: flags.FlagValues) -> None:
    """Prints the plan, for people or as JSON; nothing is written, and no data are read."""
    if options.what not in PROGRAMS:
        raise InputError(f"--what={options.what} is not a program; choose one of {', '.join(PROGRAMS)}")
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("plan needs libtpu, the TPU compiler, which needs no TPU: pip install 'igpt_jax[tpu]'")
    if isinstance(config, CodecConfig):
        print(f"compiling for {options.topology}", file=sys.stderr, flush=True)
        plan = plan_codec(config, Slice.named(options.topology, ParallelConfig(), options.slices))
        print(json.dumps(plan, indent=2) if options.json else in_words(plan, "codec's training"))
        return
    where, law = Slice.named(options.topology, config.parallel, options.slices), None
    if options.flops is not None:
        law = Law.load(as_path(options.law))
        config = recommended(config, law, options.flops)
    model = config.model
    if model.attention == "auto":
        model = dataclasses.replace(model, attention=fastest_backend("tpu", model.context, model.head_dim, model.dtype))
    config = dataclasses.replace(config, model=model)
    check_model(model, where.mesh)
    if not options.json:
        print(f"compiling {options.what} for {options.topology}, which may take minutes", file=sys.stderr, flush=True)
    try:
        plan = _plan(config, where, options.what)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0][:300]
        raise InputError(
            f"libtpu does not compile it for {where.kind}: {reason}; try another --config.model.attention, such as "
            "blockwise"
        ) from error
    if law:
        plan["recommended"] = {
            "flops": options.flops,
            "law": options.law,
            "budgets_of_the_law": law.budgets,
            "parameters_in_matmuls": matmul_parameters(model),
            "layers": model.layers,
            "width": model.width,
            "heads": model.heads,
            "steps": config.steps,
            "images": config.steps * config.data.batch_size,
            "hours_at_least": plan["seconds"] and config.steps * max(plan["seconds"].values()) / 3600,
        }
    print(json.dumps(plan, indent=2) if options.json else in_words(plan, options.what))


def _plan(config: RunConfig, where: Slice, what: str) -> dict[str, Any]:
    start = time.perf_counter()
    parameters = count_parameters(config.model)
    if what == "train":
        images = config.data.batch_size
        check_batch("data.batch_size", images, where.mesh, config.parallel.microbatches)
        compiled, remat = _compile_training(config, where)
        collectives = count_collectives(compiled)
        model, scattered = dataclasses.replace(config.model, remat=remat), "reduce-scatter" in (collectives or ())
        work = training_work(model, config.optimizer, images, parameters, where.mesh, scattered)
    else:
        images, remat = config.evaluate.batch_size, "none"
        check_batch("evaluate.batch_size", images, where.mesh)
        compiled = (_compile_features if what == "features" else _compile_sample)(config, where)
        collectives = count_collectives(compiled)
        work = (forward_work if what == "features" else sampling_work)(config.model, images, parameters, where.mesh)
    seconds = time.perf_counter() - start
    return describe(compiled, work, where, collectives=collectives, remat=remat, compile_seconds=seconds)


def _compile_training(config: RunConfig, where: Slice) -> tuple[Compiled, str]:
    optimizer = make_optimizer(config.optimizer, lambda _: config.optimizer.learning_rate, config.model.dtype)
    state = abstract_state(ImageGPT(config.model), optimizer, where.mesh)
    batch = {"tokens": _tokens(config, where, config.data.batch_size)}
    if config.objective.class_weight:
        sharding = batch_sharding(where.mesh)
        batch["label"] = jax.ShapeDtypeStruct((config.data.batch_size,), jnp.int32, sharding=sharding)
    return compile_train_step(config, optimizer, where.mesh, state, batch, where.chip.hbm_bytes if where.chip else None)


def _compile_features(config: RunConfig, where: Slice) -> Compiled:
    model, tokens_bt = ImageGPT(config.model), _tokens(config, where, config.evaluate.batch_size)
    params = abstract_params(model, where.mesh)
    with logical_axes(where.mesh):
        return image_features.lower(model, params, {"tokens": tokens_bt}).compile()


def _compile_sample(config: RunConfig, where: Slice) -> Compiled:
    model, b = ImageGPT(config.model), config.evaluate.batch_size
    rngs_b = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), b))
    rngs_b = jax.ShapeDtypeStruct(rngs_b.shape, rngs_b.dtype, sharding=batch_sharding(where.mesh))
    nothing_bt = jax.ShapeDtypeStruct((b, 0), jnp.int32, sharding=batch_sharding(where.mesh))
    params = abstract_params(model, where.mesh)
    with logical_axes(where.mesh):
        return sample.lower(model, params, rngs_b, nothing_bt).compile()


def _tokens(config: RunConfig, where: Slice, images: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((images, config.model.context), jnp.int32, sharding=batch_sharding(where.mesh))
