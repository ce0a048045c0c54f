"""Files of weights with other content, or code."""

import io
import pickle
import warnings
import zipfile

import pytest
import torch
from torch import nn

from metrics.extractors import torchscript
from metrics.extractors.tensors import read_tensors
from metrics.extractors.torchscript import is_torchscript, read_torchscript


class Attack:
    def __reduce__(self):
        return (print, ("unpickled code ran",))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.tower = nn.Sequential(nn.Linear(2, 2).half(), nn.BatchNorm1d(2))
        self.numbers = [1, 2]
        self.transposed = nn.Parameter(torch.arange(6.0).view(2, 3).T)

    def forward(self, x):
        return self.layer(x) + self.transposed.sum()


@pytest.fixture
def scripted(tmp_path):
    model = Small()
    path = tmp_path / "scripted.pt"
    with warnings.catch_warnings():
        # Scripting is deprecated; files of scripted models are not.
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(path))
    return path, model.state_dict()


def repacked(path, changes):
    """A copy of an archive with some files replaced."""
    other = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            target.writestr(name, changes.get(name.partition("/")[2], source.read(name)))
    return other


def test_torchscript_is_read_as_its_state_dict(scripted):
    path, expected = scripted
    assert is_torchscript(path)
    found = read_tensors(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
    assert read_torchscript(path, "tower.0.").keys() == {"tower.0.weight", "tower.0.bias"}


def test_plain_state_dict_is_not_torchscript(tmp_path):
    path = tmp_path / "plain.pt"
    torch.save({"a": torch.ones(2)}, path)
    assert not is_torchscript(path)
    assert torch.equal(read_tensors(path)["a"], torch.ones(2))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (pickle.dumps(Attack(), protocol=2), "it names __builtin__.print"),
        (b"\x80\x02cbuiltins\ngetattr\n.", "it names builtins.getattr"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02K\x03K\x04tR.", "no storage"),
        (b"\x80\x02c__torch__\nM\n)\x81K\x01b.", "state is not a dictionary"),
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "persistent|not enough values|describe"),
        (b"\x80\x02(", ""),
        (b"", ""),
    ],
)
def test_hostile_pickle_is_refused_without_running_code(scripted, content, why, capsys):
    path = repacked(scripted[0], {"data.pkl": content})
    with pytest.raises(ValueError, match=f"not a TorchScript archive of tensors .*({why})"):
        read_torchscript(path)
    assert "ran" not in capsys.readouterr().out


def test_cyclic_pickle_is_refused(scripted):
    # Module M with {"a": M}, by the memo.
    content = b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
    with pytest.raises(ValueError, match="nested too deeply"):
        read_torchscript(repacked(scripted[0], {"data.pkl": content}))


def test_attributes_set_by_a_pickle_change_no_object_of_the_program(scripted):
    # (_rebuild_tensor_v2).__defaults__ = (1, 2, 3, 4)
    content = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__"
        b"(K\x01K\x02K\x03K\x04ts\x86b."
    )
    before = torchscript._tensor.__defaults__
    assert read_torchscript(repacked(scripted[0], {"data.pkl": content})) == {}
    assert torchscript._tensor.__defaults__ is before is None


def test_truncated_numbers_and_archives_are_refused(scripted, tmp_path):
    short = repacked(scripted[0], {"data/0": b"\0" * 4})
    with pytest.raises(ValueError, match=r"changed\.pt does not hold the weights of a network"):
        read_tensors(short)
    half = tmp_path / "half.pt"
    half.write_bytes(scripted[0].read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"half\.pt does not hold the weights of a network"):
        read_tensors(half)


@pytest.mark.parametrize("name", ["mine.pth", "mine.safetensors"])
@pytest.mark.parametrize("content", ["nothing", "text", "code", "list", "numbers"])
def test_other_files_are_refused(tmp_path, name, content, capsys):
    path = tmp_path / name
    buffer = io.BytesIO()
    if content in ("code", "list", "numbers"):
        torch.save({"code": Attack(), "list": [1], "numbers": {"a": 1}}[content], buffer)
    path.write_bytes(b"<html>" if content == "text" else buffer.getvalue())
    with pytest.raises(ValueError, match=rf"{name} does not hold the weights of a network"):
        read_tensors(path)
    assert "ran" not in capsys.readouterr().out
