"""Devices and processes by the names that commands take."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch

from bench.system.errors import UserError, unknown
from bench.system.precision import PRECISIONS

if TYPE_CHECKING:
    from lightning_fabric import Fabric

DEVICES = ("auto", "cpu", "cuda", "mps")


def make_fabric(device: str, precision: str) -> Fabric:
    """Devices and processes: one process, or what torchrun has started."""
    from lightning_fabric import Fabric

    for kind, value, allowed in (
        ("device", device, DEVICES),
        ("precision", precision, PRECISIONS),
    ):
        if value not in allowed:
            raise unknown(kind, value, allowed)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", "1"))
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
    """'auto' is the first GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"Device {name!r} cannot be used: {first}", code=2) from None
    return device
