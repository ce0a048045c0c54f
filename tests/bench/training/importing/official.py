"""Pickles with the structure of the published ones: a class's source text and its attributes."""

import pickle
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.methods.nets.golden import FOLDER

SOURCE = "from pathlib import Path\nPath('canary').touch()\nraise SystemExit(3)\n"


class EasyDict(dict):
    pass


def _reconstruct_persistent_obj(meta):
    raise AssertionError("only pickled by name")


class Persistent(nn.Module):
    """A module that pickles as the source text of a class and its attributes."""

    def __init__(self, class_name="Block"):
        super().__init__()
        self.__dict__["class_name"] = class_name

    def __reduce__(self):
        state = {k: v for k, v in self.__dict__.items() if k != "class_name"}
        meta = EasyDict(
            type="class",
            version=6,
            module_src=SOURCE,
            class_name=self.__dict__["class_name"],
            state=state,
        )
        return _reconstruct_persistent_obj, (meta,)


@contextmanager
def format_modules():
    """Stand-ins for the modules that the format names."""
    modules = {"torch_utils": [], "torch_utils.persistence": [_reconstruct_persistent_obj]}
    modules |= {"dnnlib": [], "dnnlib.util": [EasyDict]}
    for name, members in modules.items():
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member.__name__, member)
            member.__module__, member.__qualname__ = name, member.__name__
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]


def network(tensors: dict[str, Tensor], class_name: str, **arguments) -> Persistent:
    """Nested modules that hold `tensors` by their dotted names."""
    root = Persistent(class_name)
    for name, value in tensors.items():
        *path, last = name.split(".")
        node = root
        for depth, part in enumerate(path):
            if part not in node._modules:
                # U-Nets keep their blocks in a ModuleDict each.
                blocks = part in ("enc", "dec") and depth == len(path) - 3
                node._modules[part] = nn.ModuleDict() if blocks else Persistent()
            node = node._modules[part]
        if last in ("resample_filter", "freqs"):
            node.register_buffer(last, value.clone())
        else:
            node.register_parameter(last, nn.Parameter(value.clone()))
    root._modules.setdefault("absent", None)
    root.register_parameter("bias", None)
    root.register_buffer("passing", torch.zeros(3), persistent=False)
    vars(root).update(
        _init_args=(),
        _init_kwargs=EasyDict(arguments),
        sigma_data=np.float64(0.5),
        sigma_min=0,
        sigma_max=float("inf"),
        dtype=torch.float32,
        kind=np.dtype("float32"),
        activation="text".upper,
    )
    return root


def write_official(path: Path, content: object, protocol: int = 4) -> Path:
    """Pickle `content` under the names of the format."""
    with format_modules():
        path.write_bytes(pickle.dumps(content, protocol))
    return path


def golden_weights(name: str) -> dict[str, Tensor]:
    tensors = load_file(FOLDER / f"{name}.safetensors")
    return {k.removeprefix("param."): v.float() for k, v in tensors.items() if "param." in k}


def golden_numbers(name: str) -> dict[str, Tensor]:
    tensors = load_file(FOLDER / f"{name}.safetensors")
    return {k: v for k, v in tensors.items() if "param." not in k}


def write_golden(path: Path, name: str, class_name: str, *, protocol: int = 4, **arguments) -> Path:
    """A golden network as a published file would hold it."""
    ema = network(golden_weights(name), class_name, **arguments)
    content = {"ema": ema, "loss_fn": None, "dataset_kwargs": {"resolution": 16}}
    return write_official(path, content, protocol)
