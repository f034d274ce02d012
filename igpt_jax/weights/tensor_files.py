"""Opens files of named tensors, in the format of safetensors or of torch.save."""

import functools
import pathlib

from safetensors import SafetensorError, safe_open

from igpt_jax.errors import InputError
from igpt_jax.weights.layout import Stored
from igpt_jax.weights.pickles import read_pickle

PICKLES = (".bin", ".pt", ".pth")  # common suffixes of the files of torch.save


def open_tensors(path: pathlib.Path) -> dict[str, Stored]:
    """Opens a safetensors file, or a file that torch.save wrote, without executing code from it.

    Args:
      path: the file.  Suffixes .bin, .pt and .pth mean torch.save, all others safetensors.

    Returns:
      The tensors by name, not yet read.

    Raises:
      InputError: the file is missing, damaged, or in another format.
    """
    if not path.exists():
        raise InputError(f"there is no file {path}; check the path")
    if path.suffix in PICKLES:
        return read_pickle(path)
    try:
        file = safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or cut short ({error}); download it again") from error
    return {
        name: Stored(tuple(file.get_slice(name).get_shape()), functools.partial(file.get_tensor, name))
        for name in file.keys()  # noqa: SIM118 - the file is not a dict
    }
