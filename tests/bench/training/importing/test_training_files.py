"""Files as training loops write them: objects that refer to themselves, and foreign objects."""

import argparse
import collections
import datetime
import enum
import functools
import pathlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data.pickle_values import Named, check_bounds
from bench.data.pickles import read_pickle
from bench.system.errors import UserError
from bench.training.importing.official import checkpoint_table, stranger
from bench.training.importing.source import read_source
from tests.bench.training.importing.official import (
    EasyDict,
    Persistent,
    _reconstruct_persistent_obj,
    format_modules,
    golden_weights,
    network,
    write_official,
)

NAME = "edm_ddpmpp"


class Loss:
    """Chooses one of its own methods, as a loss with several formulas does."""

    def __init__(self):
        self.sigma_data = 0.5
        self.f = self.f_sigmoid
        self.many = {"a": [self.f, self.f_const], "b": self.helper}

    def f_sigmoid(self):
        return 1

    def f_const(self):
        return 2

    @property
    def helper(self):
        return functools.partial(self.f_const)


class PersistentLoss(Loss):
    """Pickles as the source text of its class and its attributes, the dictionary itself."""

    def __reduce__(self):
        meta = EasyDict(type="class", version=6, module_src="raise SystemExit(3)",
                        class_name="ECMLoss", state=self.__dict__)  # fmt: skip
        return _reconstruct_persistent_obj, (meta,)


class Settings(dict):
    class Mode(enum.Enum):
        FAST = 1

    def __init__(self):
        super().__init__(parent=self, mode=Settings.Mode.FAST)
        self.parent = self


def same(found, weights):
    assert found.tensors.keys() == weights.keys()
    assert all(torch.equal(found.tensors[k], weights[k]) for k in weights)


@pytest.fixture
def weights():
    return golden_weights(NAME)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dumps", [pickle.dumps, pickle._dumps])
@pytest.mark.parametrize("loss", [Loss, PersistentLoss])
def test_losses_with_bound_methods_of_themselves_are_passed_over(
    place, weights, loss, dumps, protocol
):
    content = {"loss_fn": loss(), "ema": network(weights, "ECMPrecond"), "augment_pipe": None}
    with format_modules():
        (place / "net.pkl").write_bytes(dumps(content, protocol))
    found = read_source(place / "net.pkl")
    same(found, weights)
    assert (found.key, found.class_name, found.notes) == ("ema", "ECMPrecond", ())
    assert found.arguments[""]["sigma_data"] == 0.5


@pytest.fixture
def own_state(monkeypatch):
    """Networks pickle their dictionary itself, as the published programs do."""

    def reduce(self):
        name = self.__dict__["class_name"]
        meta = EasyDict(type="class", version=6, class_name=name, state=self.__dict__)
        return _reconstruct_persistent_obj, (meta,)

    monkeypatch.setattr(Persistent, "__reduce__", reduce)


@pytest.mark.parametrize("protocol", [2, 4])
def test_network_with_a_bound_method_of_itself_is_read(place, weights, own_state, protocol):
    net = network(weights, "ECMPrecond")
    net.act = net.forward
    path = write_official(place / "net.pkl", {"ema": net}, protocol)
    same(read_source(path), weights)


def test_network_that_contains_itself_is_refused(place, weights, own_state):
    content = {"ema": network(weights, "ECMPrecond")}
    content["ema"]._modules["again"] = content["ema"]
    write_official(place / "net.pkl", content)
    with pytest.raises(UserError, match="contains itself"):
        read_source(place / "net.pkl")
    loop = []
    loop.append([loop])
    with pytest.raises(UserError, match="contains itself"):
        check_bounds(loop)
    wide = [0]
    for _ in range(25):
        wide = [wide, wide]
    with pytest.raises(UserError, match="unfolds into"):
        check_bounds(wide)


def strangers():
    loop = Settings()
    return {
        "scalar": np.float64(0.5),
        "odd scalars": [np.complex64(1), np.datetime64("2020-01-01"), np.str_("a")],
        "array": np.arange(70_000.0).reshape(2, -1),
        "text array": np.array(["a", "b"]),
        "objects": np.array([{"a": 1}], dtype=object),
        "big-endian": np.arange(3, dtype=">f4"),
        "random state": np.random.default_rng(0).bit_generator.state,
        "generator": np.random.default_rng(0),
        "old generator": np.random.RandomState(0),
        "device": torch.device("cpu"),
        "shape": torch.Size([1, 2]),
        "type": torch.complex64,
        "function": torch.nn.functional.silu,
        "args": argparse.Namespace(lr=1e-4, out=pathlib.Path("runs/a"), loop=loop),
        "path": pathlib.PurePosixPath("a/b"),
        "default": collections.defaultdict(list, a=[1]),
        "counts": collections.Counter("aab"),
        "queue": collections.deque([1, 2], 3),
        "ordered": collections.OrderedDict(a=1),
        "settings": loop,
        "mode": Settings.Mode.FAST,
        "time": datetime.datetime(2020, 1, 1),
        "complex": 1j,
        "set": {1, "a", None},
        "keys": {0.999: 1, (1, 2): 2, 2**40: 3, pathlib.PurePosixPath("a"): 4},
        "long text": "x" * 100_000,
        "none": None,
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["pkl", "zip.pt", "legacy.pt"])
def test_foreign_objects_beside_the_weights_are_passed_over(place, weights, kind, protocol):
    content = {**strangers(), "ema_state_dict": weights, "model_state_dict": {"a": 1}}
    path = place / f"net.{kind}"
    if kind == "pkl":
        write_official(path, content, protocol)
    else:
        torch.save(content, path, pickle_protocol=protocol,
                   _use_new_zipfile_serialization=kind == "zip.pt")  # fmt: skip
    found = read_source(path)
    assert found.key == "ema_state_dict"
    same(found, weights)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_foreign_object_has_a_replacement_of_its_own(place, protocol):
    for name, value in strangers().items():
        (place / "x").write_bytes(pickle.dumps(value, protocol))
        with (place / "x").open("rb") as file:
            found = read_pickle(file, checkpoint_table(), strangers=stranger)
        inert = ("array", "args", "path", "settings", "mode", "time", "device", "queue")
        assert isinstance(found, Named) or name.split()[-1] not in inert, name


@pytest.mark.parametrize(
    "names",
    [
        ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"),
        ("builtins", "eval"), ("__builtin__", "exec"), ("builtins", "__import__"),
        ("commands", "getoutput"), ("shutil", "rmtree"), ("runpy", "run_path"),
        ("importlib", "import_module"), ("ctypes", "CDLL"), ("pickle", "loads"), ("pty", "spawn"),
        ("sys", "exit"), ("socket", "socket"), ("types", "FunctionType"), ("webbrowser", "open"),
        ("operator", "attrgetter"), ("functools", "reduce"), ("code", "interact"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__.get"), ("a", "B.__init__"),
    ],
)  # fmt: skip
def test_objects_that_run_code_are_refused_by_name(names):
    assert stranger(*names) is None


def test_functions_of_torch_and_numpy_may_be_named_but_not_called(place, weights):
    write_official(place / "net.pkl", {"ema": weights, "act": torch.nn.functional.silu})
    same(read_source(place / "net.pkl"), weights)
    for call in (b"ctorch\nload\n", b"cnumpy\nload\n", b"ctorch.hub\nload\n"):
        (place / "net.pkl").write_bytes(b"\x80\x02}X\x01\x00\x00\x00a" + call + b")Rs.")
        with pytest.raises(UserError, match=r"load.* that is no allowed name"):
            read_source(place / "net.pkl")


PEAK = """
import resource, sys
from pathlib import Path
import torch
from bench.training.checkpoint import save_weights
from bench.training.importing.source import read_source
import numpy as np
torch.zeros(10).to(torch.float32).sum(dtype=torch.float64)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = read_source(Path(sys.argv[1]), "ema")
save_weights(Path(sys.argv[1] + ".out"), found.tensors)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(peak * 1024 / sum(t.nbytes for t in found.tensors.values()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("kind", ["pkl", "zip.pt", "legacy.pt", "half.pt", "safetensors"])
def test_peak_memory_is_that_of_the_tensors_that_are_kept(place, kind):
    # 64 MiB are kept in float32, beside two networks and an optimiser's state as large.
    def made():
        tensors = {f"model.w{i}": torch.full((1 << 20,), 0.5) for i in range(16)}
        tensors["model.map_layer0.weight"] = torch.zeros(4, 4)
        return tensors

    path = place / f"net.{kind}"
    state = [{"exp_avg": tensor} for tensor in made().values()]
    if kind == "pkl":
        content = {"net": network(made(), "EDMPrecond"), "ema": network(made(), "EDMPrecond")}
        write_official(path, {**content, "optimizer": state})
    elif kind == "safetensors":
        from safetensors.torch import save_file

        named = {f"{part}.{k}": v.half() for part in ("net", "ema") for k, v in made().items()}
        save_file(named, path)
    else:
        half = {k: v.half() for k, v in made().items()} if kind == "half.pt" else made()
        content = {"net": made(), "ema": half, "optimizer": state}
        torch.save(content, path, _use_new_zipfile_serialization=kind != "legacy.pt")
    root = Path(__file__).parents[4]
    ran = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, cwd=root
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert float(ran.stdout) < 1.3
