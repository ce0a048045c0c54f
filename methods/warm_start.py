"""Start the denoiser of one method from the trained denoiser of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


def fourier_scale(weights: Mapping[str, Tensor]) -> float | None:
    """Root mean square of the fixed frequencies of NCSN++'s noise features; None without any."""
    found = [v.flatten() for k, v in weights.items() if k.endswith("map_noise.freqs")]
    return float(torch.cat(found).square().mean().sqrt()) if found else None


def denoiser_weights(
    source: Mapping[str, Tensor], build: Callable[[], nn.Module], part: str
) -> dict[str, Tensor]:
    """Rename the weights under `model` in `source` to the network `part` of the built module.

    An unguided source has no layer for guidance. That layer starts at zero, so that guidance has no
    effect at first. The input for augmentation labels, which are zero in sampling, is dropped if
    the network has none. Weights outside `model` keep their names.
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
