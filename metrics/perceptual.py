"""LPIPS of image pairs, from local weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from metrics.extractors.tensors import read_tensors

HEADS = "weights/v0.1/alex.pth"
SMALLEST = 31
"""Side of the smallest image for which the input of AlexNet's second pooling is not empty."""

# Convolutions of AlexNet by their names in torchvision's file: (name, stride, padding, pooled).
_LAYERS = (
    ("features.0", 4, 2, False),
    ("features.3", 1, 2, True),
    ("features.6", 1, 1, True),
    ("features.8", 1, 1, False),
    ("features.10", 1, 1, False),
)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class LPIPS:
    """Learned perceptual distance, version 0.1 on AlexNet (Zhang et al. 2018), lower is closer.

    `alexnet` are weights under torchvision's names, `heads` the linear ones under those of the
    package lpips: `lin<i>.model.1.weight` (1, C, 1, 1). `hash` covers both.
    """

    def __init__(self, alexnet: Mapping[str, Tensor], heads: Mapping[str, Tensor]) -> None:
        self._convs = [
            (alexnet[f"{name}.weight"], alexnet[f"{name}.bias"], stride, padding, pooled)
            for name, stride, padding, pooled in _LAYERS
        ]
        self._heads = [heads[f"lin{i}.model.1.weight"] for i in range(len(_LAYERS))]
        digest = hashlib.sha256()
        for tensor in [*(t for c in self._convs for t in c[:2]), *self._heads]:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self.hash = digest.hexdigest()

    @torch.no_grad()
    def __call__(self, source: Tensor, other: Tensor) -> Tensor:
        """Pairs of uint8 images (N, 3 or 1, H, W) -> (N,) float32; grey becomes three channels."""
        total = torch.zeros(len(source))
        features = zip(self._features(source), self._features(other), strict=True)
        for head, (a, b) in zip(self._heads, features, strict=True):
            total += F.conv2d((a - b).square(), head).flatten(1).mean(1)
        return total

    def _features(self, images: Tensor) -> list[Tensor]:
        """Activations after every convolution, scaled to unit length over the channels."""
        x = images.cpu().float().expand(-1, 3, -1, -1) / 127.5 - 1
        x = (x - x.new_tensor(_SHIFT)[:, None, None]) / x.new_tensor(_SCALE)[:, None, None]
        found = []
        for weight, bias, stride, padding, pooled in self._convs:
            x = F.max_pool2d(x, 3, 2) if pooled else x
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def check_size(size: Sequence[int]) -> None:
    """ValueError if images (H, W) are too small for AlexNet."""
    if min(size) < SMALLEST:
        raise ValueError(
            f"images of {'x'.join(map(str, size))} are smaller than the "
            f"{SMALLEST}x{SMALLEST} that AlexNet needs"
        )


def read_lpips(alexnet: Path) -> LPIPS:
    """LPIPS with torchvision's weights of AlexNet and the heads of the installed package lpips.

    ImportError if lpips is not installed; ValueError if a file does not hold these weights.
    """
    package = find_spec("lpips")
    places = list(package.submodule_search_locations or ()) if package is not None else []
    heads = next((Path(p) / HEADS for p in places if (Path(p) / HEADS).is_file()), None)
    if heads is None:
        raise ImportError(f"the package lpips, which carries {HEADS}, is not installed")
    try:
        return LPIPS(read_tensors(alexnet), read_tensors(heads))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{alexnet} or {heads} does not hold the weights of LPIPS") from error
