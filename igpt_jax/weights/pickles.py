"""Reads the tensors of `torch.save` files without torch, and without executing code from the file.

A pickle is a program that can call any function it names.  This reader accepts only the names that a state dict needs
and maps each to a harmless replacement.  Tensors are views of the memory-mapped file, which are read on demand.
"""

import collections
import functools
import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from typing import IO, Any, NamedTuple

import ml_dtypes
import numpy as np

from igpt_jax.errors import InputError
from igpt_jax.weights.layout import Stored

STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "LongStorage": np.dtype("<i8"),
}
_OLD_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled number at the start of files before torch 1.6
# What parsing a damaged file may raise.
_DAMAGE = (
    *(zipfile.BadZipFile, pickle.UnpicklingError, struct.error),
    *(EOFError, LookupError, TypeError, ValueError),
)
REMEDY = "convert it on a machine with torch: safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW)"


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    size: int  # elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # elements


# From a storage's key to its first byte in the file and its number of bytes.
_Spans = dict[str, tuple[int, int]]


def read_pickle(path: pathlib.Path) -> dict[str, Stored]:
    """Opens a state dict that torch saved, in the zip format or in the one before torch 1.6.

    Args:
      path: a file that `torch.save` wrote.

    Returns:
      The tensors by name, not yet read.

    Raises:
      InputError: the pickle names anything other than tensors and dicts, or the file is damaged or of another kind.
    """
    with path.open("rb") as file:
        start = file.read(len(_OLD_MAGIC))
    if start != _OLD_MAGIC and not start.startswith(b"PK"):
        raise InputError(f"{path} is not a file that torch.save wrote; {REMEDY}")
    read = _read_old if start == _OLD_MAGIC else _read_zip
    try:
        tensors, spans = read(path)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged or cut short ({error}); download it again") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise InputError(f"{path} holds something other than a dict of tensors; save model.state_dict()")
    return {name: Stored(x.shape, functools.partial(_view, path, spans, x)) for name, x in tensors.items()}


def _read_zip(path: pathlib.Path) -> tuple[object, _Spans]:
    """The unpickled state dict, and where each storage is in the file."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        (root,) = (name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("/data.pkl"))
        tensors = _Unpickler(archive.open(f"{root}data.pkl")).load()
        spans: _Spans = {}
        for info in archive.infolist():
            if info.compress_type == zipfile.ZIP_STORED:
                file.seek(info.header_offset + 26)
                name_bytes, extra_bytes = struct.unpack("<HH", file.read(4))
                start = info.header_offset + 30 + name_bytes + extra_bytes
                spans[info.filename.removeprefix(f"{root}data/")] = start, info.file_size
    return tensors, spans


def _read_old(path: pathlib.Path) -> tuple[object, _Spans]:
    """As `_read_zip` for the format before torch 1.6: pickles, then the length and the elements of each storage."""
    with path.open("rb") as file:
        for _ in ("magic number", "version", "the writer's machine"):
            _Unpickler(file).load()
        unpickler = _Unpickler(file)
        tensors = unpickler.load()
        spans: _Spans = {}
        for key in _Unpickler(file).load():
            (elements,) = struct.unpack("<q", file.read(8))
            size = elements * unpickler.storages[key].dtype.itemsize
            spans[key] = file.tell(), size
            file.seek(size, os.SEEK_CUR)
        if file.tell() > path.stat().st_size:
            raise ValueError("its end is missing")
    return tensors, spans


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return name
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) not in known:
            raise InputError(
                f"the pickle asks for {module}.{name}, which is not part of a tensor; nothing was executed"
            )
        return known[module, name]

    def persistent_load(self, saved: Any) -> _Storage:
        _, storage, key, _, size, *_ = saved
        self.storages[key] = _Storage(key, STORAGES[storage], size)
        return self.storages[key]


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: object) -> _Tensor:
    if not isinstance(storage, _Storage) or not all(type(n) is int for n in (offset, *shape, *strides, storage.size)):
        raise TypeError("a tensor with invalid fields")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: object) -> _Tensor:
    """The tensor of a torch.nn.Parameter, without its requires_grad flag and hooks."""
    if not isinstance(tensor, _Tensor):
        raise TypeError("a parameter that is not a tensor")
    return tensor


def _view(path: pathlib.Path, spans: Mapping[str, tuple[int, int]], tensor: _Tensor) -> np.ndarray:
    """The tensor as a view of the memory-mapped file."""
    storage, itemsize = tensor.storage, tensor.storage.dtype.itemsize
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    start, size = spans.get(storage.key, (0, -1))
    sound = (
        size == storage.size * itemsize
        and min(tensor.offset, *tensor.shape, *tensor.strides, 0) == 0
        and last < storage.size
    )
    if not sound:
        raise InputError(f"{path}: a tensor of shape {tensor.shape} lies outside its storage; download the file again")
    flat = np.memmap(path, storage.dtype, "r", offset=start, shape=(storage.size,))
    strides = tuple(stride * itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
