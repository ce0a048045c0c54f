"""Samples of a network in training as pictures, for loggers."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from bench.data.convert import from_model, one_hot, sampling_labels
from methods import Guidance, Method, SampleRNG

Picture = npt.NDArray[np.uint8]
"""uint8 (H, W, C), C is 1 or 3."""

SCALES = (1.0, 4.0)
"""Guidance scales that are shown, if the method supports them."""
ROWS, COLUMNS = 4, 10
VECTORS = 1000


def pictures(
    method: Method[Any], nets: nn.Module, weights: Mapping[str, Tensor], steps: int, batch: int
) -> Iterator[tuple[float, Picture]]:
    """Scales and pictures of samples with these weights, which may be an average.

    The samples are the first of sampling seed 0, so that all pictures of a run have the same noise.
    Neither `nets` nor a global random generator change. Samples that are not finite and vectors of
    more than two numbers have no picture.
    """
    nets = copy.deepcopy(nets).eval().requires_grad_(False)
    nets.load_state_dict(dict(weights))
    shape, classes = method.data.shape, method.data.num_classes
    columns = min(classes, COLUMNS)
    count = ROWS * columns if len(shape) == 3 else VECTORS
    if len(shape) == 1 and shape[0] > 2:
        return
    for scale in SCALES:
        guidance = Guidance(scale)
        if method.supports(guidance, steps) is not None:
            continue
        parts = []
        labels = sampling_labels(torch.arange(count), classes)
        for indices in torch.split(torch.arange(count), batch):
            hot = one_hot(labels[indices], classes).to(next(iter(weights.values())).device)
            with torch.inference_mode():
                rng = SampleRNG(0, indices.tolist())
                parts.append(method.sample(nets, hot, guidance, steps, rng).cpu())
        samples = torch.cat(parts)
        if samples.isfinite().all():
            found = from_model(samples)
            yield scale, _tiles(found, columns) if len(shape) == 3 else _drawn(found, labels)


def _tiles(images: Tensor, columns: int) -> Picture:
    """Images uint8 (N, C, H, W) in rows; with few classes, each column is one class."""
    n, c, h, w = images.shape
    grid = images.view(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2)
    return grid.reshape(n // columns * h, columns * w, c).numpy()


def _drawn(samples: Tensor, labels: Tensor) -> Picture:
    """Vectors (N, D): histograms of the classes if D is 1, points of the plane if D is 2."""
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(4, 3), dpi=100, layout="constrained")
    axes = figure.subplots()
    classes = [samples[labels == k].numpy() for k in range(int(labels.max()) + 1)]
    if samples.shape[1] == 1:
        axes.hist([c[:, 0] for c in classes], bins=100, histtype="step")
    for c in classes if samples.shape[1] == 2 else ():
        axes.scatter(c[:, 0], c[:, 1], s=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))
