"""Another model's weights as the first parameters of a run."""

import jax
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.train.state import abstract_params
from igpt_jax.weights.load import open_weights
from igpt_jax.weights.stream import Weights

SAME = ("objective", "layers", "width", "heads", "resolution", "vocabulary", "use_bias")


def open_origin(path: str, config: ModelConfig) -> Weights:
    """Opens what `initialise_from` names.

    Raises:
      InputError: what `open_weights` raises, or a model of another shape or objective than `config`.
    """
    weights = open_weights(path)
    for name in SAME:
        found, wanted = getattr(weights.config, name), getattr(config, name)
        if found != wanted:
            option = "objective.name" if name == "objective" else f"model.{name}"
            raise InputError(
                f"initialise_from={path} has {option}={found!r}, this run {wanted!r}; set {option}={found}"
            )
    return weights


def first_params(origin: Weights, config: ModelConfig, mesh: Mesh) -> dict:
    """Places the parameters of the origin on the mesh, and zeros for the class head and a token head that it lacks."""
    placed = origin.place(mesh)
    placed.pop("class_head", None)  # of other classes
    like = abstract_params(ImageGPT(config), mesh)
    return {name: placed[name] if name in placed else _zeros(like[name]) for name in like}


def _zeros(like):
    return jax.make_array_from_callback(like.shape, like.sharding, np.zeros(like.shape, like.dtype).__getitem__)
