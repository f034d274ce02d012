"""The model and the number of steps that a scaling law recommends for a budget of FLOPs."""

import dataclasses
import json
import math
import pathlib

from igpt_jax.config import ModelConfig, RunConfig
from igpt_jax.errors import InputError
from igpt_jax.model.flops import matmul_parameters, training_flops

_HEADS = 512  # no model is wider than this many heads


@dataclasses.dataclass(frozen=True)
class Law:
    """The best number of parameters in matmuls for a budget of C FLOPs: coefficient * C^exponent.

    Attributes:
      coefficient: of the power law.
      exponent: of the power law.
      budgets: the FLOPs of the smallest and of the largest budget that it was fitted to.
    """

    coefficient: float
    exponent: float
    budgets: tuple[float, float]

    @classmethod
    def load(cls, path: pathlib.Path) -> "Law":
        """Reads a law that `python -m experiments.scaling` wrote.

        Raises:
          InputError: there is no such file, or it holds no law.
        """
        try:
            values = json.loads(path.read_text())
            lowest, highest = map(float, values["budgets"])
            return cls(float(values["coefficient"]), float(values["exponent"]), (lowest, highest))
        except OSError as error:
            raise InputError(f"--law={path} cannot be read; python -m experiments.scaling writes such files") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"--law={path} holds no law; make it again by python -m experiments.scaling") from error

    def __call__(self, flops: float) -> float:
        """Returns the best number of parameters for a budget."""
        return self.coefficient * flops**self.exponent


def recommended(config: RunConfig, law: Law, flops: float) -> RunConfig:
    """Changes the size and the steps of a run to what the law says is best for a budget.

    The size of a head and the ratio of width to layers remain what they are, and so does the batch.  All layers are
    probed.

    Args:
      config: of the run.
      law: says how many parameters the model should have.
      flops: the budget, of forward and backward passes.

    Raises:
      InputError: the budget is too small for a step of the model.
    """
    model = _closest(config.model, law(flops))
    steps = round(flops / training_flops(model, config.data.batch_size))
    if steps < 1:
        raise InputError(f"--flops={flops:g} are not enough for one step of the best model; give more")
    probe = dataclasses.replace(config.evaluate.probe, layers=(), concatenate=0)
    return dataclasses.replace(
        config, model=model, steps=steps, evaluate=dataclasses.replace(config.evaluate, probe=probe)
    )


def _closest(model: ModelConfig, parameters: float) -> ModelConfig:
    """Finds the width and depth whose number of parameters is nearest, in ratio."""
    ratio, head_dim = model.width / model.layers, model.head_dim
    sizes = (
        dataclasses.replace(
            model, width=heads * head_dim, heads=heads, layers=max(1, round(heads * head_dim / ratio)), unroll=1
        )
        for heads in range(1, _HEADS + 1)
    )
    return min(sizes, key=lambda size: abs(math.log(matmul_parameters(size) / parameters)))
