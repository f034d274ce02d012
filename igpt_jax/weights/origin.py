"""Another model's weights as the first parameters of a run."""

from jax.sharding import Mesh

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.train.state import abstract_params, init_params
from igpt_jax.weights.load import open_weights
from igpt_jax.weights.stream import Weights

SAME = ("objective", "layers", "width", "heads", "resolution", "vocabulary", "use_bias", "tied_head")


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


def first_params(origin: Weights, config: ModelConfig, mesh: Mesh, seed: int) -> dict:
    """Places the parameters of the origin on the mesh; the class head, and a token head that it lacks, are fresh.

    seed: of the fresh ones, where they are not zero.
    """
    model, placed = ImageGPT(config), origin.place(mesh)
    placed.pop("class_head", None)  # of other classes
    names = tuple(abstract_params(model, mesh))
    fresh = init_params(model, seed, mesh, tuple(name for name in names if name not in placed))
    return {name: (placed | fresh)[name] for name in names}
