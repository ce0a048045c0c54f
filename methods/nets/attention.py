"""The self-attention of a trained U-Net, changed for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn

from methods.nets.blocks import Attend, UNetBlock

Layers = Literal["innermost", "all"] | tuple[str, ...]
"""Blocks with attention: the one at the lowest resolution between encoder and decoder, all of
them, or those of these names, such as "enc.16x16_block0"."""


def attention_blocks(module: nn.Module) -> dict[str, UNetBlock]:
    """The blocks of a U-Net that have self-attention, by their name in it."""
    blocks = ((n, m) for n, m in module.named_modules() if isinstance(m, UNetBlock) and m.heads)
    return dict(blocks)


def choose_blocks(module: nn.Module, layers: Layers) -> list[UNetBlock]:
    """The blocks that `layers` means; ValueError for a name that is none of them."""
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
    """Within, the chosen blocks attend by `attend`; afterwards, and after errors, as before."""
    blocks = choose_blocks(module, layers)
    before = [block.attend for block in blocks]
    try:
        for block in blocks:
            block.attend = attend
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            block.attend = own
