"""A model in files, read one parameter at a time, so that converting it takes little memory and loading one copy."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from igpt_jax.config import ModelConfig
from igpt_jax.data.palette import Palette
from igpt_jax.errors import InputError
from igpt_jax.model.image_gpt import ImageGPT
from igpt_jax.train.state import abstract_params
from igpt_jax.weights.layout import Part


@dataclasses.dataclass(frozen=True)
class Weights:
    """What the files at one path hold.

    Attributes:
      config: the model's shape and objective.
      read: gives one parameter in our axes, of one layer where there are several; float32.
      palette: None where the files hold none.
      step: how long it was trained, 0 where the files do not say.
    """

    config: ModelConfig
    read: Callable[[Part], np.ndarray]
    palette: Palette | None
    step: int

    def untied(self) -> "Weights":
        """The same model where the token head is a parameter of its own: all that other formats know."""
        if not self.config.tied_head:
            return self

        def read(part):
            return self.read(Part("token_embedding", None)).T if part.path == "token_head" else self.read(part)

        return dataclasses.replace(self, config=dataclasses.replace(self.config, tied_head=False), read=read)

    def place(self, mesh: Mesh) -> dict:
        """Reads every parameter straight into its sharding on the mesh; one at a time is held on the host."""
        leaves, tree = jax.tree.flatten_with_path(abstract_params(ImageGPT(self.config), mesh))
        return jax.tree.unflatten(tree, [self._place(keys, like) for keys, like in progress(leaves)])

    def _place(self, keys, like):
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        if path.startswith("blocks/"):
            array = np.empty(like.shape, np.float32)
            for layer in range(len(array)):
                array[layer] = self.read(Part(path, layer))
        else:
            array = self.read(Part(path, None))
        return jax.make_array_from_callback(like.shape, like.sharding, array.__getitem__)


def check_finite(params: dict, path: object) -> None:
    """Raises InputError where parameters hold NaN or infinity, with their names and how many there are."""
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


def progress(tensors):
    """Iterates with a bar on terminals."""
    return tqdm(tensors, unit="tensor", disable=None)
