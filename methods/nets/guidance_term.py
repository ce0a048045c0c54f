"""The guidance input that the networks share."""

from __future__ import annotations

from torch import Tensor, nn


def guidance_term(layer: nn.Linear | None, w_embed: Tensor | None) -> Tensor | float:
    """`layer`(`w_embed`), (B, width), which guidance adds to the embedding; 0 without either.

    A guided network without its embedding, or an embedding that no layer takes, would pass
    unnoticed as unguided output: both raise ValueError. No guidance is w = 0, embedded.
    """
    if layer is None and w_embed is None:
        return 0.0
    if layer is None:
        raise ValueError("this network takes no guidance embedding: build it with guidance_dim > 0")
    if w_embed is None:
        raise ValueError("this network needs w_embed; for no guidance embed w = 0")
    out: Tensor = layer(w_embed)
    return out
