"""Starts a run from the weights of another model."""

import jax
from jax.sharding import Mesh

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.train.state import abstract_params, init_params
from igpt_jax.types import Params
from igpt_jax.weights.load import open_weights
from igpt_jax.weights.stream import Weights, check_finite

# What the two models must have in common.
SAME = (
    *("objective", "layers", "width", "heads", "vocabulary", "use_bias", "tied_head"),
    *("positions", "qk_norm", "activation"),
)


def open_origin(path: str, config: ModelConfig) -> Weights:
    """Opens the weights of `initialize_from`, and checks that they fit the run.

    Args:
      path: the path of weights in any format that `load` reads.
      config: the model of the run.

    Raises:
      InputError: there are no such weights, or they are of another shape or objective than `config`.
    """
    weights = open_weights(path)
    for name in SAME:
        origin, wanted = getattr(weights.config, name), getattr(config, name)
        if origin != wanted:
            option = "objective.name" if name == "objective" else f"model.{name}"
            raise InputError(
                f"initialize_from={path} has {option}={origin!r}, this run {wanted!r}; set {option}={origin}"
            )
    return weights


def first_params(origin: Weights, config: ModelConfig, mesh: Mesh, seed: int) -> Params:
    """Initializes the parameters of a run from the weights of another model.

    The class head is always initialized afresh, and so is the token head if the weights have none.  Learned positions
    of another resolution are resampled.

    Args:
      origin: the weights that `open_origin` opened.
      config: the model of the run.
      mesh: the devices; each parameter is placed in its sharding.
      seed: of the parameters that are initialized afresh.

    Returns:
      The parameters, float32.

    Raises:
      InputError: a parameter is NaN or infinite.
    """
    model, placed = ImageGPT(config), origin.place(mesh)
    check_finite(placed, "initialize_from")
    placed.pop("class_head", None)  # it belongs to other classes
    like = abstract_params(model, mesh)
    if config.positions == "learned" and origin.config.resolution != config.resolution:
        resample = jax.jit(resample_positions, out_shardings=like["position_embedding"].sharding, static_argnums=1)
        placed["position_embedding"] = resample(placed["position_embedding"], config.resolution)
    names = tuple(like)
    fresh = init_params(model, seed, mesh, tuple(name for name in names if name not in placed))
    return {name: (placed | fresh)[name] for name in names}


def resample_positions(embedding_td: jax.Array, resolution: int) -> jax.Array:
    """Resamples a position embedding to another resolution, by bilinear interpolation of the grid of positions.

    Args:
      embedding_td: (side * side, d), in raster order.
      resolution: side of the new grid.

    Returns:
      (resolution * resolution, d), in raster order.
    """
    side, width = round(embedding_td.shape[0] ** 0.5), embedding_td.shape[1]
    grid = embedding_td.reshape(side, side, width)
    return jax.image.resize(grid, (resolution, resolution, width), "bilinear").reshape(-1, width)
