"""Networks with some residual blocks left out, as weaker versions of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from methods.nets.blocks import UNetBlock
from methods.nets.mlp import MLPBlock


def skippable_blocks(module: nn.Module) -> dict[str, nn.Module]:
    """The residual blocks whose output has the shape of their input, by module name, in order."""
    return {
        name: block
        for name, block in module.named_modules()
        if isinstance(block, MLPBlock) or (isinstance(block, UNetBlock) and block.skip is None)
    }


@contextmanager
def skipped_blocks(module: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """Let the named blocks return their input; restored on exit and on error.

    Raises ValueError for a name that is not one of `skippable_blocks`.
    """
    blocks = skippable_blocks(module)
    missing = [name for name in names if name not in blocks]
    if missing:
        raise ValueError(
            f"there is no block named {', '.join(missing)} that can be skipped; this network has: "
            f"{', '.join(blocks) or 'none'}"
        )
    chosen = [blocks[name] for name in names]
    try:
        for block in chosen:
            block.forward = _identity
        yield
    finally:
        for block in chosen:
            block.__dict__.pop("forward", None)


def _identity(x: Tensor, *_: Any) -> Tensor:
    return x
