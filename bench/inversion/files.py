"""Image files in and out: pictures of the model's size, latents as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.data import Dataset
from bench.data.decode import decode, read_head
from bench.data.samples.card import class_names
from bench.data.samples.write import png_bytes
from bench.data.trees import FILE_MOST
from bench.system.errors import UserError, unknown
from bench.system.files import read_whole, write_bytes
from bench.training.checkpoint import write_tensors

_LISTED = 20


def read_images(files: Sequence[Path], data: Dataset) -> Tensor:
    """Image files as uint8 (N, C, H, W) of the data set's shape.

    Colour becomes grey or grey colour as the model wants it; transparency is dropped. UserError
    for a file that cannot be read or has another size.
    """
    channels, height, width = data.spec.shape
    images = []
    for file in files:
        try:
            content = read_whole(file, FILE_MOST)
            _, size = read_head(content, file)
            if size != (width, height):
                raise UserError(
                    f"{file} has {size[0]}x{size[1]} pixels; a model of {data.name} takes "
                    f"{width}x{height}: resize it first."
                )
            images.append(decode(content, file, channels=channels, to_grey=True).pixels)
        except UserError as error:
            raise UserError(str(error), code=2) from None
        except OSError as error:
            raise UserError(f"Cannot read {file}: {error.strerror}.", code=2) from None
    return torch.from_numpy(np.stack(images)).contiguous()


def class_index(text: str, data: Dataset, option: str) -> int:
    """Index of a class given by name or index; UserError for an unknown one."""
    names = class_names(data, data.spec)
    if text in names:
        return names.index(text)
    if text.isascii() and text.isdigit() and int(text) < len(names):
        return int(text)
    if len(names) <= _LISTED:
        raise unknown(f"class of {data.name} for {option}", text, names)
    raise UserError(
        f"Unknown class {text!r} of {data.name} for {option}: name one of its {len(names)} "
        f"classes, such as {names[0]!r}, or give an index from 0 to {len(names) - 1}.",
        code=2,
    )


def write_image(path: Path, image: Tensor) -> None:
    """Write a uint8 image (C, H, W) as PNG, atomically."""
    write_bytes(path, png_bytes(image.permute(1, 2, 0).numpy(), optimize=True))


def write_latents(path: Path, latents: Tensor, labels: Tensor, facts: Mapping[str, object]) -> None:
    """Write latents (N, C, H, W) and their classes (N,) atomically.

    `facts` become the metadata's only entry, 'about', as JSON: the format keeps no order of
    several, and equal latents make equal files.
    """
    tensors = {"latents": latents.contiguous(), "labels": labels.contiguous()}
    write_tensors(path, tensors, {"about": json.dumps(facts)})
