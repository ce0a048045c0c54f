"""Temporary changes to the self-attention of a trained U-Net."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn

from methods.nets.blocks import Attend, UNetBlock

Layers = Literal["innermost", "all"] | tuple[str, ...]
"""Blocks with attention: the lowest-resolution block between encoder and decoder, all blocks,
or blocks by name, such as "enc.16x16_block0"."""


def attention_blocks(module: nn.Module) -> dict[str, UNetBlock]:
    """The blocks of a U-Net that have self-attention, by module name."""
    blocks = ((n, m) for n, m in module.named_modules() if isinstance(m, UNetBlock) and m.heads)
    return dict(blocks)


def choose_blocks(module: nn.Module, layers: Layers) -> list[UNetBlock]:
    """The blocks that `layers` selects. Raises ValueError for an unknown name."""
    blocks = attention_blocks(module)
    if layers == "all":
        return list(blocks.values())
    if layers == "innermost":
        return [block for name, block in blocks.items() if name.endswith("_in0")]
    missing = [name for name in layers if name not in blocks]
    if missing:
        raise ValueError(
            f"there is no block with attention named {', '.join(missing)}; this network has: "
            f"{', '.join(blocks) or 'none'}"
        )
    return [blocks[name] for name in layers]


@contextmanager
def changed_attention(module: nn.Module, layers: Layers, attend: Attend) -> Iterator[None]:
    """Replace the attention of the chosen blocks by `attend`; restored on exit and on error."""
    blocks = choose_blocks(module, layers)
    before = [block.attend for block in blocks]
    try:
        for block in blocks:
            block.attend = attend
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            block.attend = own
