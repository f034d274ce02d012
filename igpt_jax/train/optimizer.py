"""Adam as the paper uses it, or Muon for the hidden matrices beside it; and the schedules of the learning rate."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from igpt_jax.config import OptimizerConfig, RunConfig
from igpt_jax.model.flops import NEWTON_SCHULZ_ITERATIONS


def optimizer_and_schedule(
    config: RunConfig, images_per_epoch: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Builds the optimizer of a run, and the schedule of its learning rate.

    Args:
      config: the run.
      images_per_epoch: number of training images; sets the length of the warm-up.
    """
    steps_per_epoch = images_per_epoch / config.data.batch_size
    schedule = learning_rate_schedule(config.optimizer, steps=config.steps, steps_per_epoch=steps_per_epoch)
    return make_optimizer(config.optimizer, schedule, config.model.dtype), schedule


def learning_rate_schedule(config: OptimizerConfig, *, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Returns the schedule of the learning rate: a linear warm-up from 0 to the peak, then `config.schedule`.

    "cosine" falls to 0 after the last step (paper, section 3.4).  "constant" stays at the peak.  "wsd" stays there, and
    falls linearly to 0 over the last `decay_fraction` of the steps.

    Args:
      config: peak, warm-up and schedule.
      steps: of the whole run.
      steps_per_epoch: training images divided by the batch size.
    """
    warmup, peak = warmup_steps(config, steps=steps, steps_per_epoch=steps_per_epoch), config.learning_rate
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0, peak_value=peak, warmup_steps=warmup, decay_steps=steps
        )
    rise, stay = optax.linear_schedule(0.0, peak, warmup), optax.constant_schedule(peak)
    if config.schedule == "constant":
        return optax.join_schedules([rise, stay], [warmup])
    decay = max(1, min(round(config.decay_fraction * steps), steps - warmup))
    fall = optax.linear_schedule(peak, 0.0, decay)
    return optax.join_schedules([rise, stay, fall], [warmup, steps - decay])


def warmup_steps(config: OptimizerConfig, *, steps: int, steps_per_epoch: float) -> int:
    """Returns `warmup_epochs` in steps, but at most a quarter of the run, so that short runs learn too."""
    return min(round(config.warmup_epochs * steps_per_epoch), steps // 4)


def make_optimizer(config: OptimizerConfig, schedule: optax.Schedule, dtype: str) -> optax.GradientTransformation:
    """Returns the optimizer that a config names.

    Args:
      config: name and options.
      schedule: of `config.learning_rate`.
      dtype: the model's compute type, in which Muon orthogonalizes.
    """
    return muon(config, schedule, dtype) if config.name == "muon" else adam(config, schedule)


def adam(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Returns Adam, by default with the paper's β2 of 0.95, which prevents spikes of the loss (appendix A.1)."""
    return optax.adam(schedule, b1=config.b1, b2=config.b2, eps=config.eps)


def muon(config: OptimizerConfig, schedule: optax.Schedule, dtype: str) -> optax.GradientTransformation:
    """Returns Muon for the matrices of the blocks, with Adam for embeddings, heads, gains and biases.

    The update of a matrix is its orthogonalized momentum, times sqrt(outputs / inputs) if that is above 1, plus
    `weight_decay` times the matrix.  It is multiplied by a rate that follows `schedule`, with `muon_learning_rate` as
    its peak.

    Reference:
      Jordan et al. 2024, https://kellerjordan.github.io/posts/muon
    """
    for_matrices = optax.chain(
        optax.trace(config.muon_momentum, nesterov=True),
        optax.stateless(lambda updates, _: jax.tree.map_with_path(functools.partial(_muon_update, dtype), updates)),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(lambda step: schedule(step) * (config.muon_learning_rate / config.learning_rate)),
    )
    return optax.partition(
        {"matrix": for_matrices, "other": adam(config, schedule)},
        lambda params: jax.tree.map_with_path(lambda path, _: "matrix" if _is_matrix(path) else "other", params),
    )


def orthogonalize(x_lio: jax.Array) -> jax.Array:
    """Brings the singular values of every matrix near 1 and leaves its singular vectors, by Newton-Schulz iteration.

    The coefficients are Jordan's: five iterations bring all values that are not tiny into 0.7..1.2, which is near
    enough, and take them from as far away as possible.

    Args:
      x_lio: (l, inputs, outputs), a stack of matrices; bfloat16 is precise enough.

    Returns:
      The same shape and type.
    """
    if x_lio.shape[1] > x_lio.shape[2]:
        return orthogonalize(x_lio.swapaxes(1, 2)).swapaxes(1, 2)
    for _ in range(NEWTON_SCHULZ_ITERATIONS):
        gram_lii = jnp.einsum("lio,ljo->lij", x_lio, x_lio)
        x_lio = 3.4445 * x_lio + (-4.7750 * gram_lii + 2.0315 * gram_lii @ gram_lii) @ x_lio
    return x_lio


def _is_matrix(path: tuple[Any, ...]) -> bool:
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return names[0] == "blocks" and names[-1] == "kernel"


def _muon_update(dtype: str, path: tuple[Any, ...], update: jax.Array) -> jax.Array:
    """Of a kernel (layers, *inputs, *outputs), every layer by itself.

    On a mesh the matrices are dealt out whole, since their products would not stop exchanging parts.
    """
    inputs = update.ndim - 2 if path[-2].key == "out" else 1
    x_lio = update.reshape(len(update), math.prod(update.shape[1 : 1 + inputs]), -1)
    x_lio /= jnp.linalg.norm(x_lio, axis=(1, 2), keepdims=True) + 1e-8
    x_lio = nn.with_logical_constraint(x_lio.astype(dtype), ("matrix", None, None))
    _, i, o = x_lio.shape
    return max(1, o / i) ** 0.5 * orthogonalize(x_lio).reshape(update.shape).astype(update.dtype)
