"""Weights of a trained denoiser as the initial weights of another method's denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def denoiser_weights(
    source: Mapping[str, Tensor], build: Callable[[], nn.Module], part: str
) -> dict[str, Tensor]:
    """Weights under `model` in `source`, under their names in the network `part` of `build`'s.

    What guidance adds to that network is absent in an unguided source and starts at zero, so that
    it is blind to guidance at first. The input for augmentation labels, which are zero in sampling,
    is left out where the network has none. Weights outside `model` keep their names.
    """
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build().state_dict().items()}
    weights = {
        f"{part}.{name.removeprefix('model.')}" if name.startswith("model.") else name: value
        for name, value in source.items()
    }
    augment = f"{part}.map_augment.weight"
    if augment not in shapes:
        weights.pop(augment, None)
    for name, shape in shapes.items():
        if name.startswith(f"{part}.map_w_embed."):
            weights.setdefault(name, torch.zeros(shape))
    return weights
