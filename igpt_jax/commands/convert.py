"""Makes weights of one format into another."""

from absl import flags

from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import count_parameters
from igpt_jax.weights.convert import convert


def main(options: flags.FlagValues) -> None:
    """Writes the weights of --input to the new directory --output, in the format --to."""
    for name in ("input", "output", "to"):
        if not options[name].value:
            raise InputError(f"--{name} is missing; convert needs --input=PATH --output=DIR --to=FORMAT")
    weights = convert(options.input, options.output, options.to, palette=options.palette)
    palette = f"palette of {len(weights.palette)} colors" if weights.palette else "no palette"
    print(f"{options.output}: {count_parameters(weights.config):,} parameters for {options.to}, {palette}")
