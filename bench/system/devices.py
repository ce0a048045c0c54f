"""Devices, processes, precision and the compiler, by the names that commands take."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from bench.system.errors import UserError, unknown

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DEVICES = ("auto", "cpu", "cuda", "mps")
FabricPrecision = Literal["32-true", "bf16-mixed"]
PRECISIONS: Mapping[str, FabricPrecision] = {
    "32-true": "32-true",
    "tf32": "32-true",
    "bf16-mixed": "bf16-mixed",
}
"""Values of --precision, and Fabric's names for them."""
DEFAULT_BACKEND = "inductor"
"""Of torch.compile."""


def make_fabric(device: str, precision: str) -> Fabric:
    """One process, or the processes that torchrun started."""
    from lightning_fabric import Fabric

    for kind, value, allowed in (
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in allowed:
            raise unknown(kind, value, allowed)
    warnings.filterwarnings("ignore", "The `srun` command is available")  # where Slurm is
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    _check_cuda(device)
    try:
        fabric = Fabric(
            accelerator=device,
            devices=local,
            num_nodes=max(world // local, 1),
            strategy="ddp" if world > 1 else "auto",
            precision=PRECISIONS[precision],
        )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"Cannot use device {device!r} with precision {precision!r}: {error}", code=2
        ) from None
    return fabric


def resolve_device(name: str) -> torch.device:
    """The device by name; 'auto' is the first GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    _check_cuda(name)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"Device {name!r} cannot be used: {first}", code=2) from None
    return device


def _check_cuda(name: str) -> None:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "There is no GPU that CUDA can use here: drop --device, or use --device cpu. "
            "bench doctor shows what was found.",
            code=2,
        )


def gpu_count() -> int:
    """How many CUDA devices this process may use."""
    return torch.cuda.device_count()


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Use TF32 in CUDA's matrix products and convolutions for 'tf32' only, during the block.

    Torch's default uses it in convolutions, which would not be the float32 of '32-true'.
    """
    allowed = precision == "tf32"
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32, cudnn.allow_tf32 = allowed, allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def compiler_problem(device: torch.device, backend: str = DEFAULT_BACKEND) -> str | None:
    """None if a trial of torch.compile works here, or the first line of its error.

    Inductor needs a C++ compiler on a CPU and Triton on a GPU, and fails only when used.
    """
    try:
        trial = torch.compile(lambda x: (x * 2 + 1).sum(), backend=backend)
        trial(torch.ones(8, device=device))
    except Exception as error:  # each compiler has its own exceptions
        lines = str(error).split("\n")
        return next((line.strip() for line in lines if line.strip()), type(error).__name__)
    return None


def compile_nets(nets: nn.Module, backend: str = DEFAULT_BACKEND) -> None:
    """Compile the networks in place: the module's own forward, or its parts' if it has none.

    This keeps the names of the weights. Drawing a dropout mask from a generator breaks the graph,
    which costs speed but does not change results.
    """
    own_forward = type(nets).forward is not nn.Module.forward
    for module in [nets] if own_forward else nets.children():
        module.compile(backend=backend)
