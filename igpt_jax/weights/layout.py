"""The table of where each parameter is stored in OpenAI's and Hugging Face's files; all conversions derive from it.

Axes are einops patterns in the letters of `igpt_jax.model`.  In names, `{}` stands for the number of the block.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import einops
import numpy as np

from igpt_jax.config import ModelConfig
from igpt_jax.errors import InputError


class Row(NamedTuple):
    """One parameter of `ImageGPT` (of one block, if all blocks have it), and where the two formats store it."""

    path: str  # in the parameter tree, keys joined by "/"
    axes: str
    openai: str  # below the scope model/; "" if the format has no such parameter
    openai_axes: str
    huggingface: str  # below transformer., except for the heads
    huggingface_axes: str


TABLE = (
    Row("token_embedding", "v d", "wte", "v d", "wte.weight", "v d"),
    Row("sos", "d", "sos", "d", "wte.weight", "1 d"),
    Row("position_embedding", "t d", "wpe", "t d", "wpe.weight", "t d"),
    Row("blocks/attention_norm/gain", "d", "h{}/ln_1/g", "d", "h.{}.ln_1.weight", "d"),
    Row("blocks/attention/query/kernel", "d h k", "h{}/attn/q_proj", "h k d", "h.{}.attn.c_attn.weight", "d (h k)"),
    Row("blocks/attention/key/kernel", "d h k", "h{}/attn/k_proj", "h k d", "h.{}.attn.c_attn.weight", "d (h k)"),
    Row("blocks/attention/value/kernel", "d h k", "h{}/attn/v_proj", "h k d", "h.{}.attn.c_attn.weight", "d (h k)"),
    Row("blocks/attention/query/bias", "h k", "", "", "h.{}.attn.c_attn.bias", "(h k)"),
    Row("blocks/attention/key/bias", "h k", "", "", "h.{}.attn.c_attn.bias", "(h k)"),
    Row("blocks/attention/value/bias", "h k", "", "", "h.{}.attn.c_attn.bias", "(h k)"),
    Row("blocks/attention/out/kernel", "h k d", "h{}/attn/c_proj", "h k d", "h.{}.attn.c_proj.weight", "(h k) d"),
    Row("blocks/attention/out/bias", "d", "", "", "h.{}.attn.c_proj.bias", "d"),
    Row("blocks/mlp_norm/gain", "d", "h{}/ln_2/g", "d", "h.{}.ln_2.weight", "d"),
    Row("blocks/mlp/up/kernel", "d f", "h{}/mlp/c_fc/w", "d f", "h.{}.mlp.c_fc.weight", "d f"),
    Row("blocks/mlp/up/bias", "f", "", "", "h.{}.mlp.c_fc.bias", "f"),
    Row("blocks/mlp/down/kernel", "f d", "h{}/mlp/c_proj/w", "f d", "h.{}.mlp.c_proj.weight", "f d"),
    Row("blocks/mlp/down/bias", "d", "", "", "h.{}.mlp.c_proj.bias", "d"),
    Row("final_norm/gain", "d", "ln_f/g", "d", "ln_f.weight", "d"),
    Row("token_head", "d v", "wtet", "v d", "lm_head.weight", "v d"),
    Row("class_head", "d c", "clf/wclf", "c d", "score.weight", "c d"),
)
ROWS = {row.path: row for row in TABLE}
BIASES = tuple(path for path in ROWS if path.endswith("/bias"))


class Stored(NamedTuple):
    """A tensor in a file, which is read on demand."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


class Part(NamedTuple):
    """A parameter of block `layer`, or one outside the blocks if `layer` is None."""

    path: str
    layer: int | None


class Layout:
    """The tensors in which one format stores a model, named as in the table.

    Several parameters may be concatenated in one tensor: Hugging Face joins query, key and value, and stores `sos` as
    the last row of the token embedding.  If the model has no biases or no `sos`, Hugging Face stores zeros instead.

    Args:
      config: the model.
      format: "openai" or "huggingface".
    """

    def __init__(self, config: ModelConfig, *, format: str) -> None:
        self.config, self.format = config, format
        c = config
        self._sizes = {"v": c.vocabulary, "t": c.context, "d": c.width, "h": c.heads, "k": c.head_dim}
        self._sizes |= {"f": 4 * c.width, "c": c.classes}
        self.parts: dict[str, list[Part]] = {}  # by tensor name, in the order of the network
        for in_blocks, rows in itertools.groupby(TABLE, lambda row: row.path.startswith("blocks/")):
            kept = [row for row in rows if self._keeps(row)]
            for layer, row in itertools.product(range(c.layers) if in_blocks else [None], kept):
                name = getattr(row, format).format(layer)
                self.parts.setdefault(name, []).append(Part(row.path, layer))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a stored tensor."""
        shapes = [self._part_shape(part) for part in self.parts[name]]
        shape, axis = list(shapes[0]), _joined_axis(name)
        shape[axis] = sum(shape[axis] for shape in shapes)
        return tuple(shape)

    def check(self, stored: Mapping[str, Stored], where: object) -> None:
        """Checks that exactly these tensors are stored, in these shapes.

        Args:
          stored: the tensors of the files.
          where: what error messages call the files.

        Raises:
          InputError: a tensor is missing, unexpected, or of another shape.
        """
        complaints = []
        for problem, names in (
            ("lacks", [name for name in self.parts if name not in stored]),
            ("has the unexpected", [name for name in stored if name not in self.parts]),
        ):
            if names:
                rest = f" and {len(names) - 8} more" if len(names) > 8 else ""
                complaints.append(f"{problem} {', '.join(names[:8])}{rest}")
        if complaints:
            raise InputError(
                f"{where} {' and '.join(complaints)}; expected the {len(self.parts)} tensors of an Image GPT of "
                f"{self.config.layers} layers: download it again, or check that it is one"
            )
        for name, tensor in stored.items():
            if tensor.shape != self.shape(name):
                raise InputError(
                    f"{where}: {name} has shape {tensor.shape}; its config and other tensors make it "
                    f"{self.shape(name)}; use files that belong together"
                )

    def unpack(self, part: Part, stored: Mapping[str, Stored]) -> np.ndarray:
        """Reads one parameter as a new float32 array, with its axes in the order of the parameter tree."""
        row = ROWS[part.path]
        name = getattr(row, self.format).format(part.layer)
        parts, axis = self.parts[name], _joined_axis(name)
        stops = list(itertools.accumulate(self._part_shape(part)[axis] for part in parts))
        array = np.split(stored[name].read(), stops[:-1], axis)[parts.index(part)]
        return np.array(self._rearrange(array, self._axes(row), row.axes), np.float32, order="C")

    def pack(self, name: str, read: Callable[[Part], np.ndarray]) -> np.ndarray:
        """Assembles one stored tensor.

        Args:
          name: the tensor's name in this format.
          read: reads a parameter, with its axes in the order of the parameter tree.

        Returns:
          The tensor, float32, in the shape `self.shape(name)`.
        """
        arrays = []
        for part in self.parts[name]:
            row = ROWS[part.path]
            if has(self.config, part.path):
                arrays.append(self._rearrange(read(part), row.axes, self._axes(row)))
            else:
                arrays.append(np.zeros(self._part_shape(part), np.float32))
        return np.concatenate(arrays, _joined_axis(name))

    def _keeps(self, row: Row) -> bool:
        if self.format == "huggingface" and row.path in (*BIASES, "sos"):
            return True
        return bool(getattr(row, self.format)) and has(self.config, row.path)

    def _axes(self, row: Row) -> str:
        return getattr(row, f"{self.format}_axes")

    def _part_shape(self, part: Part) -> tuple[int, ...]:
        groups = re.findall(r"\(.*?\)|\S", self._axes(ROWS[part.path]))
        return tuple(math.prod(self._sizes.get(axis, 1) for axis in group.strip("()").split()) for group in groups)

    def _rearrange(self, array: np.ndarray, axes: str, to: str) -> np.ndarray:
        return einops.rearrange(array, f"{axes} -> {to}", **{x: n for x, n in self._sizes.items() if x in axes})


def check_architecture(config: ModelConfig) -> None:
    """Checks that OpenAI's and Hugging Face's formats can represent a model.

    Raises:
      InputError: the block is not the released one, or the class head does not read the final norm.
    """
    for name in ("positions", "qk_norm", "activation"):
        value, released = getattr(config, name), getattr(ModelConfig, name)
        if value != released:
            raise InputError(
                f"this model has model.{name}={value}, and this format supports only {released}; "
                "convert it with --to=igpt"
            )
    if config.classes and not config.head_on_final_norm:
        raise InputError(
            f"this model's class head reads layer {config.head_layer}, and this format supports only the final "
            "norm; convert it with --to=igpt"
        )


def has(config: ModelConfig, path: str) -> bool:
    """Whether a model of this config has the parameter."""
    if path in BIASES:
        return config.use_bias
    has_token_head = config.token_head and not config.tied_head
    return {"sos": config.causal, "token_head": has_token_head, "class_head": config.classes > 0}.get(path, True)


def _joined_axis(name: str) -> int:
    """The axis along which the parameters of a stored tensor are concatenated."""
    return -1 if ".c_attn." in name else 0


def resolution_of(positions: int, where: object) -> int:
    """The side of the square image with this many positions.

    Args:
      positions: number of rows of the position embedding.
      where: what the error message calls the file.

    Raises:
      InputError: the number of positions is not a square.
    """
    side = math.isqrt(positions)
    if side**2 != positions:
        raise InputError(f"{where} has {positions} positions; expected a square number, such as 1024 = 32*32")
    return side
