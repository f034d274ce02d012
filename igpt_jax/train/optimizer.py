"""Adam as the paper uses it: no weight decay, no clipping, linear warm-up, cosine to zero or none (section 3.4)."""

import optax

from igpt_jax.config import OptimizerConfig
from igpt_jax.errors import InputError


def learning_rate_schedule(config: OptimizerConfig, *, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Rises linearly from 0 to the peak over the warm-up epochs, then falls to 0 at `steps` along a cosine, or stays.

    Raises InputError where the warm-up is not shorter than the run.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if warmup >= steps:
        raise InputError(
            f"the warm-up of {config.warmup_epochs:g} epochs is {warmup} steps, but the run has {steps}; "
            f"lower optimizer.warmup_epochs or raise steps"
        )
    if config.schedule == "constant":
        rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
        return optax.join_schedules([rise, optax.constant_schedule(config.learning_rate)], [warmup])
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0, peak_value=config.learning_rate, warmup_steps=warmup, decay_steps=steps
    )


def adam(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam with the paper's β2 of 0.95, against loss spikes (appendix A.1)."""
    return optax.adam(schedule, b1=config.b1, b2=config.b2, eps=config.eps)
