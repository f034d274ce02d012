"""Weights in files, read one parameter at a time: converting needs little memory, and loading only one copy."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from igpt_jax.config import ModelConfig
from igpt_jax.data.tokenizer import Tokenizer
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.progress import track
from igpt_jax.train.state import abstract_params
from igpt_jax.types import Params
from igpt_jax.weights.layout import Part

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Weights:
    """A trained model in files that are open but not yet read.

    Attributes:
      config: the model's shape and objective.
      read: reads one parameter, or one block's part of it, as float32 with the axes of the parameter tree.
      palette: the palette or codec in the files; None if there is none.
      step: number of training steps; 0 if the files do not say.
    """

    config: ModelConfig
    read: Callable[[Part], np.ndarray]
    palette: Tokenizer | None
    step: int

    def untied(self) -> "Weights":
        """The same model with the token head as a separate parameter, since other formats cannot tie it."""
        if not self.config.tied_head:
            return self

        def read(part: Part) -> np.ndarray:
            return self.read(Part("token_embedding", None)).T if part.path == "token_head" else self.read(part)

        return dataclasses.replace(self, config=dataclasses.replace(self.config, tied_head=False), read=read)

    def place(self, mesh: Mesh) -> Params:
        """Reads all parameters directly into their shardings on the mesh; the host holds only one at a time."""
        leaves, tree = jax.tree.flatten_with_path(abstract_params(ImageGPT(self.config), mesh))
        return jax.tree.unflatten(
            tree, [self._place(keys, like) for keys, like in track(leaves, "weights", len(leaves), "tensor")]
        )

    def _place(self, keys: tuple[Any, ...], like: Any) -> jax.Array:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if path.startswith("blocks/"):
            array = np.empty(like.shape, np.float32)
            for layer in range(len(array)):
                array[layer] = self.read(Part(path, layer))
        else:
            array = self.read(Part(path, None))
        return jax.make_array_from_callback(like.shape, like.sharding, array.__getitem__)


def params_reader(params: Params) -> Callable[[Part], np.ndarray]:
    """Returns a `Weights.read` of parameters in memory."""
    leaves = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf)
        for keys, leaf in jax.tree.leaves_with_path(params)
    }
    return lambda part: leaves[part.path] if part.layer is None else leaves[part.path][part.layer]


def check_finite(params: Params, path: object) -> None:
    """Checks that no parameter is NaN or infinite.

    Args:
      params: the parameters.
      path: what the error message calls them.

    Raises:
      InputError: some are; the message names the tensors and the number of values.
    """
    count = jax.jit(lambda params: jax.tree.map(lambda x: (~jnp.isfinite(x)).sum(), params))
    broken = {
        jax.tree_util.keystr(keys, simple=True, separator="/"): int(number)
        for keys, number in jax.tree.leaves_with_path(jax.device_get(count(params)))
        if number
    }
    if broken:
        named = ", ".join(f"{name} ({number:,} values)" for name, number in list(broken.items())[:8])
        raise InputError(
            f"{path} holds NaN or infinity in {len(broken)} tensors: {named}; take an earlier checkpoint, or download "
            "it again"
        )
