"""torch.compile for training: optional, and never a reason for a run to fail."""

from __future__ import annotations

import torch
from torch import nn

DEFAULT_BACKEND = "inductor"


def compiler_problem(device: torch.device, backend: str = DEFAULT_BACKEND) -> str | None:
    """None if the compiler works on this machine, shown by a trial, or the first line of why not.

    Inductor needs a C++ compiler on a CPU and Triton on a GPU, and finds out only when used.
    """
    try:
        trial = torch.compile(lambda x: (x * 2 + 1).sum(), backend=backend)
        trial(torch.ones(8, device=device))
    except Exception as error:  # compilers fail in ways of their own
        lines = [line for line in str(error).splitlines() if line.strip()]
        return lines[0].strip() if lines else type(error).__name__
    return None


def compile_nets(nets: nn.Module, backend: str = DEFAULT_BACKEND) -> None:
    """Compile the networks in place: the module's own forward, or its parts' if it has none.

    In place leaves the names of weights as they are. Drawing a dropout mask from a generator breaks
    the graph, which costs speed and changes nothing.
    """
    own_forward = type(nets).forward is not nn.Module.forward
    for module in [nets] if own_forward else nets.children():
        module.compile(backend=backend)
