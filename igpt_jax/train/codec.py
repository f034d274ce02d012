"""Trains a codec to reconstruct pictures; an interrupted training resumes as if nothing had happened."""

import contextlib
import functools
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from igpt_jax.codes.codec import Codec, quantize
from igpt_jax.codes.config import CodecConfig
from igpt_jax.codes.network import Decoder, Encoder, to_floats
from igpt_jax.codes.quantize import Codebook, first_codebook, update_codebook
from igpt_jax.data.kmeans import psnr
from igpt_jax.errors import InputError
from igpt_jax.parallel.mesh import put_batch, replicated
from igpt_jax.progress import progress
from igpt_jax.storage import Mirror, absolute
from igpt_jax.train.checkpoint import DamagedCheckpoint, reading
from igpt_jax.train.metrics import METRICS, JsonLines
from igpt_jax.train.preemption import Preemption
from igpt_jax.types import HostBatch, Params


class State(NamedTuple):
    """All that a step changes."""

    step: jax.Array
    params: Params  # "encoder" and "decoder"
    opt_state: Any
    codebook: Codebook | None  # of "vq"


def codec_of(config: CodecConfig, state: State) -> Codec:
    """The codec that a state has learned so far."""
    params = dict(state.params)
    if state.codebook is not None:
        params["vectors"] = state.codebook.vectors_kd
    return Codec(config.network, jax.tree.map(np.asarray, params))


def first_state(config: CodecConfig, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step, from the seed."""
    network, keys = config.network, jax.random.split(jax.random.key(config.seed), 3)
    picture = jnp.zeros((1, config.resolution, config.resolution, 3))
    encoder = Encoder(network).init(keys[0], picture)["params"]
    side = config.resolution // network.factor
    decoder = Decoder(network).init(keys[1], jnp.zeros((1, side, side, network.latent_width)))["params"]
    params = {"encoder": encoder, "decoder": decoder}
    codebook = first_codebook(keys[2], network.codes, network.latent_width) if network.quantizer == "vq" else None
    return State(jnp.zeros((), jnp.int32), params, optimizer.init(params), codebook)


def make_optimizer(config: CodecConfig) -> optax.GradientTransformation:
    """Muon for the kernels between hidden layers, and Adam for all other parameters.

    Both rates have a warm-up of a twentieth of the steps and a cosine to 0. Every device has all parameters, so optax's
    Muon serves here; `optimizer.muon` is for stacks of matrices that are split over a mesh.
    """
    schedule = functools.partial(
        optax.warmup_cosine_decay_schedule, 0.0, warmup_steps=max(1, config.steps // 20), decay_steps=config.steps
    )
    return optax.contrib.muon(
        schedule(config.muon_learning_rate),
        adam_learning_rate=schedule(config.learning_rate),
        muon_weight_dimension_numbers=functools.partial(jax.tree.map_with_path, _matrix_axes),
    )


def _matrix_axes(path: tuple[Any, ...], kernel: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
    """Which axes of a kernel are the rows and the columns of a matrix; None for what is not between hidden layers."""
    if kernel.ndim == 1 or path[-2].key in ("patches", "latents"):
        return None
    return optax.contrib.MuonDimensionNumbers(tuple(range(kernel.ndim - 1)), kernel.ndim - 1)


def train_step(
    config: CodecConfig, optimizer: optax.GradientTransformation, state: State, images_bhwc: jax.Array
) -> tuple[State, dict[str, jax.Array]]:
    """Takes one step.

    Args:
      config: the training.
      optimizer: from `make_optimizer`.
      state: before the step.
      images_bhwc: a batch, uint8 0-255.

    Returns:
      The state after the step, and scalars: "mean_squared_error" on the scale of 0-255, and "perplexity" of the batch's
      codes.
    """
    network, pictures = config.network, to_floats(images_bhwc)
    vectors = {} if state.codebook is None else {"vectors": state.codebook.vectors_kd}

    def loss(params: Params) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        latents: Any = Encoder(network).apply({"params": params["encoder"]}, pictures)
        values, codes = quantize(network, vectors, latents)
        decoded: Any = Decoder(network).apply({"params": params["decoder"]}, values)
        error = jnp.square(decoded - pictures).mean()
        commitment = jnp.square(latents - jax.lax.stop_gradient(values)).mean() if vectors else 0.0
        return error + config.commitment * commitment, (error, latents, codes)

    grads, (error, latents, codes) = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    codebook = state.codebook
    if codebook is not None:
        rng = jax.random.fold_in(jax.random.key(config.seed), state.step)
        codebook = update_codebook(
            codebook, latents.reshape(-1, network.latent_width), codes.reshape(-1), rng, config.decay
        )
    shares = jnp.bincount(codes.reshape(-1), length=network.vocabulary) / codes.size
    metrics = {"mean_squared_error": error * 127.5**2, "perplexity": perplexity(shares)}
    return State(state.step + 1, optax.apply_updates(state.params, updates), opt_state, codebook), metrics


def perplexity(shares_k: jax.Array) -> jax.Array:
    """The number of equally frequent codes that would have the same entropy."""
    return jnp.exp(-(shares_k * jnp.log(jnp.where(shares_k > 0, shares_k, 1.0))).sum())


def fit(
    config: CodecConfig,
    workdir: pathlib.Path,
    batches_from: Callable[[int], Iterator[HostBatch]],
    mesh: Mesh,
    preemption: Preemption,
) -> Codec:
    """Trains a codec, from its newest checkpoint if there is one.

    Args:
      config: the training.
      workdir: receives checkpoints and metrics.jsonl.
      batches_from: from a 0-based step to an iterator over all batches from that step on, with "image".
      mesh: devices, which split the batch; each has all parameters.
      preemption: says when to stop early.

    Returns:
      The codec after the last step.

    Raises:
      Preempted: a signal has arrived; everything is saved, and the next call continues.
      InputError: the loss is NaN or infinite, or the newest checkpoint is damaged.
    """
    optimizer = make_optimizer(config)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
    with contextlib.ExitStack() as stack:
        manager = stack.enter_context(ocp.CheckpointManager(absolute(workdir) / "checkpoints", options=options))
        state = jax.device_put(first_state(config, optimizer), replicated(mesh))
        if (newest := manager.latest_step()) is not None:
            state = _restored(manager, newest, state)
        start = int(state.step)
        mirror = stack.enter_context(contextlib.closing(Mirror(workdir, METRICS)))
        lines = stack.enter_context(contextlib.closing(JsonLines(mirror.path / METRICS, start)))
        step_function = jax.jit(functools.partial(train_step, config, optimizer), donate_argnums=0)

        def save() -> None:
            lines.sync()
            mirror.push()
            manager.save(int(state.step), args=ocp.args.StandardSave(state))

        stack.enter_context(preemption.held())
        advance = stack.enter_context(progress("codec", config.steps, "step", start))
        for step, batch in zip(range(start + 1, config.steps + 1), batches_from(start), strict=False):
            state, metrics = step_function(state, put_batch({"image": batch["image"]}, mesh)["image"])
            advance(1)
            if step % config.log_every == 0 or step == config.steps:
                scalars = {name: float(value) for name, value in metrics.items()}
                if not all(map(math.isfinite, scalars.values())):
                    raise InputError(
                        f"the loss is not finite after step {step}; use another --workdir with a lower learning_rate "
                        "and muon_learning_rate"
                    )
                lines.write_scalars(step, scalars)
            if preemption.reached(step):
                save()
                raise preemption.notice
            if step % config.checkpoint_every == 0 or step == config.steps:
                save()
        return codec_of(config, state)


def _restored(manager: Any, step: int, like: State) -> State:
    try:
        with reading(manager.directory / str(step)):
            return manager.restore(step, args=ocp.args.StandardRestore(like))
    except DamagedCheckpoint as error:
        raise InputError(f"{error}; delete it to go on from the one before") from error


def measure(codec: Codec, batches: Iterator[HostBatch]) -> dict[str, Any]:
    """Measures a codec on images.

    Args:
      codec: to measure.
      batches: with "image" (b, R, R, 3) uint8 0-255.

    Returns:
      "images", "mean_squared_error" on the scale of 0-255, "psnr" in dB, "codes_used" (the share of all codes that
      occur, in per cent) and "perplexity" of the codes of all images.
    """
    images, squares, counts_k = 0, 0.0, np.zeros(len(codec), np.int64)
    for batch in batches:
        tokens_bt = codec.encode(batch["image"])
        counts_k += np.bincount(tokens_bt.reshape(-1), minlength=len(codec))
        difference = codec.decode(tokens_bt).astype(np.float64) - batch["image"]
        squares += float(np.square(difference).mean(axis=(1, 2, 3)).sum())
        images += len(tokens_bt)
    error = squares / images
    return {
        "images": images,
        "mean_squared_error": error,
        "psnr": psnr(error),
        "codes_used": float(100 * (counts_k > 0).mean()),
        "perplexity": float(perplexity(jnp.asarray(counts_k / counts_k.sum()))),
    }
