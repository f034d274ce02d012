"""The reader of torch's pickles: every layout of a tensor, and nothing else."""

import collections
import os
import zipfile

import numpy as np
import pytest
import torch

import igpt_jax as ig
from igpt_jax.weights.pickles import read_pickle


def test_views_strides_and_types_read_as_torch_made_them(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = {
        "whole": base,
        "transposed": base.T,
        "row": base[2],
        "window": base[1:3, ::2],
        "scalar": torch.tensor(-1e4),
        "empty": torch.zeros(0, 3),
        **{
            str(dtype): base.to(dtype)
            for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.bool)
        },
    }
    torch.save(collections.OrderedDict(tensors), tmp_path / "model.bin")
    stored = read_pickle(tmp_path / "model.bin")
    assert list(stored) == list(tensors)
    for name, tensor in tensors.items():
        array = stored[name].read()
        assert stored[name].shape == array.shape == tensor.shape
        np.testing.assert_array_equal(array.astype(np.float64), tensor.double().numpy(), err_msg=name)


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (str(self._path),)


@pytest.mark.parametrize("value", ["as a tensor", "beside the tensors"])
def test_a_pickle_that_would_run_a_program_is_refused_by_name_and_not_run(value, tmp_path):
    hostile = Hostile(tmp_path / "made")
    torch.save(hostile if value == "as a tensor" else {"a": torch.ones(2), "b": hostile}, tmp_path / "model.bin")
    with pytest.raises(ig.InputError, match=r"model\.bin: the pickle asks for posix\.mkdir, .* nothing was executed"):
        read_pickle(tmp_path / "model.bin")
    assert not (tmp_path / "made").exists()


def write_archive(path, program):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", program)
        archive.writestr("model/data/0", np.arange(4, dtype="<f4").tobytes())


@pytest.mark.parametrize(
    "name",
    ["builtins eval", "builtins getattr", "os system", "torch load", "torch._utils _rebuild_tensor", "numpy load"],
)
def test_names_that_no_tensor_needs_are_refused(name, tmp_path):
    module, attribute = name.split()
    write_archive(tmp_path / "model.bin", f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(ig.InputError, match=f"asks for {module}.{attribute}, which is not part of a tensor"):
        read_pickle(tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [(0, (5,), (1,)), (1, (4,), (1,)), (0, (2, 2), (3, 1)), (-1, (2,), (1,)), (3, (2,), (-1,)), (2**62, (1,), (1,))],
)
def test_a_tensor_outside_its_storage_is_refused(offset, shape, stride, tmp_path):
    def integers(values):
        return b"(" + b"".join(b"I%d\n" % value for value in values) + b"t"

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuI4\ntQ"
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"I%d\n" % offset
        + integers(shape)
        + integers(stride)
        + b"I00\nNtR"
    )
    write_archive(tmp_path / "model.bin", b"\x80\x02}X\x01\0\0\0a" + tensor + b"s.")
    stored = read_pickle(tmp_path / "model.bin")
    with pytest.raises(ig.InputError, match="lies outside its storage"):
        stored["a"].read()


@pytest.mark.parametrize(
    "program", [b"", b"\x80\x02}", b"\x80\x02]X\x01\0\0\0a0.", b"\x80\x02K\x07.", b"ctorch\nFloatStorage\n)R."]
)
def test_a_pickle_of_something_else_is_refused(program, tmp_path):
    write_archive(tmp_path / "model.bin", program)
    with pytest.raises(ig.InputError, match=r"damaged or cut short|something other than a dict of tensors"):
        read_pickle(tmp_path / "model.bin")


@pytest.mark.parametrize("as_zip", [True, False])  # False: the format before torch 1.6
def test_either_format_is_read_and_a_truncated_file_refused(as_zip, tmp_path):
    path, tensors = tmp_path / "model.bin", {"a": torch.randn(40, 25).T, "n": torch.tensor(7)}
    tensors["p"] = torch.nn.Parameter(torch.randn(3))
    torch.save(tensors, path, _use_new_zipfile_serialization=as_zip)
    for name, found in read_pickle(path).items():
        np.testing.assert_array_equal(found.read(), tensors[name].detach().numpy())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ig.InputError, match=r"damaged or cut short .* download it again"):
        read_pickle(path)
    path.write_bytes(b"no torch file")
    with pytest.raises(ig.InputError, match=r"not a file that torch.save wrote; convert it on a machine with torch"):
        read_pickle(path)
