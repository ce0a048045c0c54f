"""Files made to do harm: each is refused in one sentence, runs nothing and takes no memory."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tests.bench.helpers import bench, contents
from tests.bench.training.importing.official import golden_weights, network, write_official

MAGIC = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True, "protocol_version": 1001}]


class Runs:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch():
    return Runs(os.system, "touch canary")


def named(module: str, name: str, *arguments: bytes) -> bytes:
    """Opcodes that call a name with texts."""
    texts = b"".join(b"X" + struct.pack("<I", len(a)) + a for a in arguments)
    return b"\x80\x02" + f"c{module}\n{name}\n(".encode() + texts + b"tR."


def legacy(inner: bytes, names=(), data=b"") -> bytes:
    parts = [pickle.dumps(part, 2) for part in MAGIC]
    return b"".join(parts) + inner + pickle.dumps(list(names), 2) + data


def storage_pickle(count: int, kind: str = "FloatStorage") -> bytes:
    """The inner pickle of a torch file that holds one storage."""
    text = b"X\x07\x00\x00\x00storage" + f"ctorch\n{kind}\n".encode()
    text += b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    number = pickle.dumps(count, 2)[2:-1]
    return b"\x80\x02(" + text + number + b"NtQ."


def around(payload: bytes) -> bytes:
    """A pickle that hands `payload` to torch's reader of nested files."""
    return (
        b"\x80\x02}X\x03\x00\x00\x00emactorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(payload)) + payload + b"\x85Rs."
    )  # fmt: skip


def zipped(content: bytes, **entries: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in entries.items():
            archive.writestr(f"archive/data/{name.removeprefix('s')}", data)
    return out.getvalue()


def view(count: int, size: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    """A state dict of one tensor that lies as it is said in a storage of `count` float32."""
    storage = storage_pickle(count)[2:-1]
    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n("
        + storage + offset + size + stride + b"\x89}tRs."
    )  # fmt: skip


def safetensors(header: dict, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


HUGE = {"w": {"dtype": "F32", "shape": [2_500_000_000], "data_offsets": [0, 10_000_000_000]}}
BOMB = b"\x80\x02K\x01" + b"2\x86" * 60 + b"."
DEEP = b"\x80\x02)" + b"\x85" * 5000 + b"."

FILES = {
    "system.pkl": (lambda: pickle.dumps({"ema": touch()}), "posix.system"),
    "eval.pkl": (lambda: named("builtins", "eval", b"open('canary','w')"), "builtins.eval"),
    "exec-v0.pkl": (lambda: named("__builtin__", "exec", b"open('canary','w')"), "__builtin__.ex"),
    "evil-module.pkl": (
        lambda: named("evil.torch_utils.persistence", "_reconstruct_persistent_obj"),
        "evil.torch_utils.persistence",
    ),
    "torch-load.pkl": (lambda: named("torch", "load", b"other.pt"), "torch.load"),
    "torch-utils.pkl": (lambda: named("torch._utils", "_rebuild_wrapper_subclass"), "_wrapper_sub"),
    "torch-hub.pkl": (lambda: named("torch.hub", "load", b"a", b"b"), "torch.hub.load"),
    "numpy.pkl": (lambda: named("numpy", "load", b"other.npy"), "numpy.load"),
    "module.pkl": (lambda: named("torch.nn.modules.container", "Sequential"), "Sequential"),
    "getattr.pkl": (
        lambda: b"\x80\x02cbuiltins\ngetattr\ncos\nsystem\nX\x06\x00\x00\x00system\x86R.",
        "names os.system",
    ),
    "getattr-call.pkl": (
        lambda: b"\x80\x02cbuiltins\ngetattr\nctorch_utils.persistence\n"
        b"_reconstruct_persistent_obj\nX\x0b\x00\x00\x00__globals__\x86R)R.",
        "calls a Named",
    ),
    "dotted.pkl": (
        lambda: b"\x80\x04\x8c\x0ctorch._utils\x8c\x22_rebuild_tensor_v2.__globals__.get\x93.",
        "_rebuild_tensor_v2.__globals__.get",
    ),
    "extension.pkl": (lambda: b"\x80\x02\x82\x01.", "opcode EXT1"),
    "memo.pkl": (lambda: b"\x80\x02K\x01r\xff\xff\xff\x7f.", "memo"),
    "bomb.pkl": (lambda: BOMB, "unfolds into"),
    "deep.pkl": (lambda: DEEP, "levels deep"),
    "nested-bomb.pkl": (lambda: around(legacy(BOMB)), "unfolds into"),
    "nested-deep.pkl": (lambda: around(legacy(DEEP)), "levels deep"),
    "nested-long.pkl": (lambda: around(legacy(b"\x80\x02" + b"N0" * 900 + b"N.")), "1,000 opcodes"),
    "nested-system.pkl": (lambda: around(legacy(pickle.dumps(touch(), 2))), "posix.system"),
    "nested-nested.pkl": (lambda: around(legacy(around(b""))), "torch.storage._load_from_bytes"),
    "nested-magic.pkl": (lambda: around(pickle.dumps(touch())), "posix.system"),
    "nested-none.pkl": (lambda: around(legacy(pickle.dumps(3, 2))), "has no storage"),
    "nested-cut.pkl": (lambda: around(b""), "declares 1 bytes"),
    "huge-storage.pkl": (
        lambda: around(legacy(storage_pickle(10**10), ["0"], struct.pack("<q", 10**10))),
        "declares 40,000,000,000 bytes",
    ),
    "negative-storage.pkl": (lambda: around(legacy(storage_pickle(-1), ["0"])), "usable size"),
    "short-storage.pkl": (
        lambda: around(legacy(storage_pickle(8), ["0"], struct.pack("<q", 8) + bytes(31))),
        "ends early",
    ),
    "other-storage.pkl": (
        lambda: around(legacy(storage_pickle(8), ["0"], struct.pack("<q", 9) + bytes(36))),
        "differs in size",
    ),
    "many-bytes.pkl": (
        lambda: b"\x80\x02ctorch.storage\n_load_from_bytes\nB\xff\xff\xff\x7fab", "declares"
    ),
    "legacy-system.pt": (lambda: legacy(pickle.dumps({"ema": touch()}, 2)), "posix.system"),
    "legacy-persistent.pt": (
        lambda: legacy(b"\x80\x02X\x01\x00\x00\x00aQ."), "not a storage of a tensor"
    ),
    "zip-system.pt": (lambda: zipped(pickle.dumps({"ema": touch()}, 2)), "posix.system"),
    "zip-huge.pt": (lambda: zipped(view(10**10, b"K\x01\x85", b"K\x01\x85")), "40,000,000,000"),
    "zip-absent.pt": (lambda: zipped(view(1, b"K\x01\x85", b"K\x01\x85")), "lacks the values"),
    "zip-expand.pt": (
        lambda: zipped(view(1, b"J\x00\xca\x9a\x3b\x85", b"K\x00\x85"), s0=bytes(4)), "leave gaps"
    ),
    "zip-beyond.pt": (
        lambda: zipped(view(1, b"K\x02\x85", b"K\x01\x85"), s0=bytes(4)), "does not fit into"
    ),
    "zip-before.pt": (
        lambda: zipped(view(1, b"K\x01\x85", b"K\x01\x85", b"J\xff\xff\xff\xff"), s0=bytes(4)),
        "an invalid shape",
    ),
    "zip-empty.pt": (lambda: zipped(b""), "declares 1 bytes"),
    "zip-cut.pt": (lambda: zipped(b"\x80\x02N.")[:-30], "cut short"),
    "no-torch.pt": (lambda: b"PK\x05\x06" + bytes(18), "no torch file"),
    "huge.safetensors": (lambda: safetensors(HUGE) + bytes(8), "cut short, damaged"),
    "header.safetensors": (lambda: safetensors(HUGE, 10**10), "cut short, damaged"),
    "text.pkl": (lambda: b"<html>not found</html>", "is no checkpoint"),
    "empty.pkl": (lambda: b"", "is empty"),
    "number.pkl": (lambda: pickle.dumps(3), "neither one nor a state dict"),
    "values.pkl": (lambda: pickle.dumps({"ema": {"w": 3}}), "'w' in it is no tensor"),
    "list.pkl": (lambda: pickle.dumps({"ema": [1, 2]}), "'ema' in it is no tensor"),
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(path, message):
    ran = bench("import", path, "--as", "x", "-d", "golden16", "-m", "edm")
    assert ran.code in (1, 2)
    assert any(part in ran.err for part in message.split("|")), ran.err
    assert ran.err.startswith("Error: ")
    assert ran.err.count("\n") == 1
    assert list(contents(path.parent)) == [path.name]


@pytest.mark.parametrize("name", FILES)
def test_hostile_files_are_refused(place, name):
    make, message = FILES[name]
    (place / name).write_bytes(make())
    refused(place / name, message)


def test_payload_runs_when_unpickled_with_trust(place):
    pickle.loads(FILES["system.pkl"][0]())
    assert (place / "canary").exists()


def test_official_files_with_wrong_parts_are_refused(place):
    def changed(change):
        net = network(golden_weights("edm_ddpmpp"), "EDMPrecond")
        change(net)
        return {"ema": net}

    for change, message in (
        (lambda net: net.__dict__.update(_parameters={"w": 3}), "w in the file is no tensor"),
        (lambda net: net.__dict__.update(_buffers=None), "no table _buffers"),
        (lambda net: net.__dict__.update(_modules={"m": {}}), "m in the file is no network module"),
        (lambda net: net.__dict__.update(hook=touch()), "posix.system"),
        (lambda net: net._modules.update(model=touch()), "posix.system"),
    ):
        refused(write_official(place / "net.pkl", changed(change)), message)


def test_storage_with_many_names_is_refused(place):
    weights = {k: v for k, v in golden_weights("edm_ddpmpp").items() if v.ndim == 4}
    shared = torch.zeros(max(v.numel() for v in weights.values()) * 4)
    tensors = {f"model.p{i}": shared for i in range(1000)}
    torch.save(tensors, place / "net.pt")
    refused(place / "net.pt", "unfold into more bytes")


@pytest.mark.parametrize("step", [1, 97])
def test_truncated_files_are_refused(place, step):
    net = network(golden_weights("edm_ddpmpp"), "EDMPrecond")
    path = write_official(place / "net.pkl", {"ema": net})
    whole = path.read_bytes()
    for cut in (1, 2, 20, len(whole) // 3, len(whole) // 2 + step, len(whole) - step):
        path.write_bytes(whole[:cut])
        refused(path, "refused|early|damaged|declares")


def test_values_that_are_not_finite_are_named(place):
    weights = golden_weights("edm_ddpmpp")
    weights["model.map_layer0.bias"][0] = torch.inf
    weights["model.map_layer1.bias"][0] = torch.nan
    path = write_official(place / "net.pkl", {"ema": network(weights, "EDMPrecond")})
    refused(path, "model.map_layer0.bias, model.map_layer1.bias have values that are not finite")


MEASURE = """
import resource, sys
from pathlib import Path
from bench.system.errors import UserError
import bench.training.importing.plan
from bench.training.importing.source import read_source
limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 64 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name in sys.argv[1:]:
    try:
        read_source(Path(name))
    except UserError:
        continue
    sys.exit(f"{name} was read")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_hostile_files_take_no_memory_to_refuse(place):
    files = []
    for name, (make, _) in FILES.items():
        (place / name).write_bytes(make())
        files.append(str(place / name))
    root = Path(__file__).parents[4]
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, *files], capture_output=True, text=True, cwd=root
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert not (place / "canary").exists()
