"""The guidance input of all networks."""

from __future__ import annotations

from torch import Tensor, nn


def guidance_term(layer: nn.Linear | None, w_embed: Tensor | None) -> Tensor | float:
    """`layer`(`w_embed`), (B, width), to be added to the noise embedding; 0 if both are None.

    Raises ValueError if only one of them is None, since the output would silently be unguided. For
    no guidance, pass the embedding of w = 0.
    """
    if layer is None and w_embed is None:
        return 0.0
    if layer is None:
        raise ValueError("this network takes no guidance embedding: build it with guidance_dim > 0")
    if w_embed is None:
        raise ValueError("this network needs w_embed; for no guidance embed w = 0")
    out: Tensor = layer(w_embed)
    return out
