"""Another model's weights as the first parameters of a run."""

import jax
from jax.sharding import Mesh

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.train.state import abstract_params, init_params
from igpt_jax.weights.load import open_weights
from igpt_jax.weights.stream import Weights, check_finite

SAME = (
    *("objective", "layers", "width", "heads", "vocabulary", "use_bias", "tied_head"),
    *("positions", "qk_norm", "activation"),
)


def open_origin(path: str, config: ModelConfig) -> Weights:
    """Opens what `initialize_from` names.

    Raises:
      InputError: what `open_weights` raises, or a model of another shape or objective than `config`.
    """
    weights = open_weights(path)
    for name in SAME:
        found, wanted = getattr(weights.config, name), getattr(config, name)
        if found != wanted:
            option = "objective.name" if name == "objective" else f"model.{name}"
            raise InputError(
                f"initialize_from={path} has {option}={found!r}, this run {wanted!r}; set {option}={found}"
            )
    return weights


def first_params(origin: Weights, config: ModelConfig, mesh: Mesh, seed: int) -> dict:
    """Places the parameters of the origin on the mesh; the class head, and a token head that it lacks, are fresh.

    Learned positions of another resolution are resampled.

    seed: of the fresh ones, where they are not zero.
    """
    model, placed = ImageGPT(config), origin.place(mesh)
    check_finite(placed, "initialize_from")
    placed.pop("class_head", None)  # of other classes
    like = abstract_params(model, mesh)
    if config.positions == "learned" and origin.config.resolution != config.resolution:
        resample = jax.jit(resample_positions, out_shardings=like["position_embedding"].sharding, static_argnums=1)
        placed["position_embedding"] = resample(placed["position_embedding"], config.resolution)
    names = tuple(like)
    fresh = init_params(model, seed, mesh, tuple(name for name in names if name not in placed))
    return {name: (placed | fresh)[name] for name in names}


def resample_positions(embedding_td: jax.Array, resolution: int) -> jax.Array:
    """Vectors for a grid of another resolution by bilinear interpolation of the old grid, which it covers."""
    side, width = round(embedding_td.shape[0] ** 0.5), embedding_td.shape[1]
    grid = embedding_td.reshape(side, side, width)
    return jax.image.resize(grid, (resolution, resolution, width), "bilinear").reshape(-1, width)
