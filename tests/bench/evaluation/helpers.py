"""Folders of images, and an extractor that costs nothing."""

import hashlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metrics.base import Extracted, Extractor


class Small(Extractor):
    """Images of any size to 8 features of a 4x4 version, and 5 logits; counts what it sees."""

    name = "small"
    dim = 8
    has_logits = True
    seen = 0
    poison = -1
    """Index within a batch, of a batch of 300 or less, whose features become NaN."""

    def __init__(self, weights=None, *, download=False) -> None:
        self.hash = hashlib.sha256(b"small").hexdigest()
        draw = np.random.default_rng(0).normal(size=(48, 13)).astype(np.float32)
        self.matrix = torch.from_numpy(draw)

    def __call__(self, samples: Tensor) -> Extracted:
        type(self).seen += len(samples)
        x = samples.float().expand(-1, 3, -1, -1)
        x = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1) / 64
        both = x @ self.matrix
        if self.poison >= 0:
            both[self.poison] = float("nan")
        return Extracted(both[:, :8].contiguous(), both[:, 8:].contiguous())


def pictures(n=40, shape=(3, 8, 8), seed=0, shift=0):
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 180, (n, shape[0], 1, 1))
    return (colours + generator.integers(0, 60, (n, *shape)) + shift).astype(np.uint8)


def write_folder(folder, images, classes=2):
    for i, image in enumerate(images):
        path = folder / f"c{i % classes}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = image.transpose(1, 2, 0)
        Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture).save(path)
    return folder
