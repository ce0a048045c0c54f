"""The Inception network of the Frechet Inception Distance, from a local weights file."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metrics.base import Extracted, Extractor

WEIGHTS_FILE = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS_SHA256 = "6726825d"
WEIGHTS_FOLDER_VARIABLE = "GUIDANCE_BENCH_WEIGHTS"
SIZE = 299

Resize = Literal["tf1", "clean"]


class MissingWeights(FileNotFoundError):
    """The weights file is not there, and no download was asked for."""


def weights_folders() -> list[Path]:
    """Where the weights are looked for, first to last; a download goes to the first.

    The folder named by $GUIDANCE_BENCH_WEIGHTS, or a per-user cache folder; then the checkpoints
    of torch.hub, where torch-fidelity puts the same file.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = os.environ.get(WEIGHTS_FOLDER_VARIABLE)
    first = Path(own).expanduser() if own else cache / "guidance-bench" / "weights"
    return [first, Path(torch.hub.get_dir()) / "checkpoints"]


def find_weights(weights: Path | None = None, *, download: bool = False) -> Path:
    """Find the weights file; `weights` is a file, or a folder instead of `weights_folders`.

    MissingWeights if there is none. `download` fetches it from the address torch-fidelity names,
    about 91 MiB, and refuses it unless its SHA-256 begins as published.
    """
    if weights is None:
        candidates = [folder / WEIGHTS_FILE for folder in weights_folders()]
    else:
        is_file = weights.is_file() or weights.suffix == ".pth"
        candidates = [weights if is_file else weights / WEIGHTS_FILE]
    for path in candidates:
        if path.is_file():
            return path
    target = candidates[0]
    if not download:
        raise MissingWeights(
            f"Inception weights {target.name} (SHA-256 begins {WEIGHTS_SHA256}) are not in "
            f"{target.parent}: put the file there, or allow its download with download=True"
        )
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    target.parent.mkdir(parents=True, exist_ok=True)
    torch.hub.download_url_to_file(
        URL_INCEPTION_V3, str(target), hash_prefix=WEIGHTS_SHA256, progress=False
    )
    return target


class InceptionExtractor(Extractor):
    """Pool features (B, 2048) and unbiased logits (B, 1008) of Inception-v3 (2015-12-05).

    `resize` "tf1" is the bilinear resize of TensorFlow 1 that FID began with, as torch-fidelity
    emulates it; "clean" is the antialiased bicubic one of Parmar et al. (2022), clipped to the
    range and not rounded. The two are different extractors: their values do not compare. Grey
    images are repeated to three channels.

    MissingWeights if no file is found (see `find_weights`); ValueError if the file does not hold
    this network.
    """

    dim = 2048
    has_logits = True

    def __init__(
        self,
        weights: Path | None = None,
        *,
        resize: Resize = "tf1",
        device: str | torch.device = "cpu",
        download: bool = False,
    ) -> None:
        if resize not in ("tf1", "clean"):
            raise ValueError(f"resize is 'tf1' or 'clean', got {resize!r}")
        path = find_weights(weights, download=download)
        content = path.read_bytes()
        library = f"torch-fidelity {version('torch-fidelity')}"
        if resize == "clean":
            library += f" clean-fid {version('clean-fid')}"
        about = f"{hashlib.sha256(content).hexdigest()} {resize} {library}"
        self.name = "inception" if resize == "tf1" else "inception-clean"
        self.hash = hashlib.sha256(about.encode()).hexdigest()
        self.resize = resize
        self.device = torch.device(device)
        self._net = _network(content, path).to(self.device)

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Extracted:
        """uint8 (B, 3 or 1, H, W) -> float32 on the CPU; ValueError on another dtype or shape."""
        if samples.dtype != torch.uint8 or samples.ndim != 4 or samples.shape[1] not in (1, 3):
            raise ValueError(
                f"extractor {self.name} takes uint8 images (B, 3 or 1, H, W), got "
                f"{samples.dtype} {tuple(samples.shape)}"
            )
        colour = samples.expand(-1, 3, -1, -1)
        if self.resize == "tf1":
            x = _tf1_resize(colour.to(self.device).float())
        else:
            x = clean_resize(colour).to(self.device)
        # TensorFloat-32, the default for convolutions on a GPU, would move the features by 1e-3.
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            return self._extract((x - 128) / 128)

    def _extract(self, x: Tensor) -> Extracted:
        features = _pool_features(self._net, x)
        logits = features @ self._net.fc.weight.T
        return Extracted(features.cpu(), logits.cpu())


def clean_resize(images: Tensor) -> Tensor:
    """uint8 (B, 3, H, W) -> float32 (B, 3, 299, 299) in [0, 255], by clean-fid's own resizer."""
    from cleanfid.resize import build_resizer

    resize = build_resizer("clean")
    arrays = images.permute(0, 2, 3, 1).cpu().numpy()
    resized = torch.from_numpy(np.stack([resize(array) for array in arrays]))
    return resized.permute(0, 3, 1, 2).contiguous()


def _tf1_resize(images: Tensor) -> Tensor:
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    resized: Tensor = interpolate_bilinear_2d_like_tensorflow1x(
        images, size=(SIZE, SIZE), align_corners=False
    )
    return resized


def _network(content: bytes, path: Path) -> Any:
    """Build the network as torch-fidelity does; the file itself can only hold tensors."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # torch-fidelity unpickles whatever it is given, so it is given our own copy of the tensors.
    copy = io.BytesIO()
    try:
        torch.save(torch.load(io.BytesIO(content), weights_only=True, map_location="cpu"), copy)
        copy.seek(0)
        return FeatureExtractorInceptionV3(
            "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=copy
        )
    except (RuntimeError, pickle.UnpicklingError, EOFError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not hold the weights of this network (SHA-256 of the published file "
            f"begins {WEIGHTS_SHA256}): remove it and fetch it again"
        ) from error


BLOCKS = (
    "Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1",
    "Conv2d_4a_3x3", "MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b",
    "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "AvgPool",
)  # fmt: skip


def blocks(until: str = "") -> tuple[str, ...]:
    """Names of the network's blocks in their order, those before `until` if that is given."""
    return BLOCKS[: BLOCKS.index(until)] if until else BLOCKS


def _pool_features(net: Any, x: Tensor) -> Tensor:
    """Images scaled to [-1, 1] (B, 3, 299, 299) -> (B, 2048).

    The network's own `forward` resizes inside, which "clean" must not.
    """
    for name in blocks():
        x = getattr(net, name)(x)
    return x.flatten(1)
