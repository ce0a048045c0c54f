"""Image files in and out: pictures of the model's size, latents as safetensors."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.data import Dataset
from bench.data.untrusted import DAMAGE
from bench.inversion.grid import png
from bench.system.errors import UserError, said, unknown
from bench.system.files import check_regular, write_bytes
from bench.system.tensor_files import write_tensors

FORMATS = ("PNG", "JPEG")
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_LISTED = 20


def read_images(files: Sequence[Path], data: Dataset) -> Tensor:
    """PNG and JPEG files as uint8 (N, C, H, W) of the data set's shape.

    Colour becomes grey or grey colour as the model wants it; transparency is dropped. UserError
    for a file that cannot be read or has another size.
    """
    channels, height, width = data.spec.shape
    images = []
    for file in files:
        try:
            check_regular(file)
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(file, formats=FORMATS) as picture:
                    if picture.size != (width, height):
                        raise UserError(
                            f"{file} has {picture.size[0]}x{picture.size[1]} pixels; a model of "
                            f"{data.name} takes {width}x{height}: resize it first.",
                            code=2,
                        )
                    if picture.mode not in _EIGHT_BIT:
                        raise UserError(
                            f"{file} has pixels of mode {picture.mode!r}; give 8 bits a channel.",
                            code=2,
                        )
                    # A palette with transparency has to be resolved before it can be dropped.
                    whole = picture.convert("RGBA") if picture.mode in ("P", "PA") else picture
                    pixels = np.asarray(whole.convert("L" if channels == 1 else "RGB"))
        except UnidentifiedImageError:
            raise UserError(f"{file} is no PNG or JPEG picture.", code=2) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise UserError(
                f"{file} is far larger than the {width}x{height} pixels that a model of "
                f"{data.name} takes.",
                code=2,
            ) from None
        except DAMAGE as error:
            why = getattr(error, "strerror", None) or said(error)
            raise UserError(f"Cannot read {file}: {why}.", code=2) from None
        images.append(torch.from_numpy(pixels.reshape(height, width, channels).copy()))
    return torch.stack(images).permute(0, 3, 1, 2).contiguous()


def class_index(text: str, data: Dataset, option: str) -> int:
    """A class by its name or else its index; UserError with what there is for anything else."""
    names = data.class_names
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
    write_bytes(path, png(image.permute(1, 2, 0).contiguous().numpy()))


def write_latents(path: Path, latents: Tensor, labels: Tensor, facts: Mapping[str, object]) -> None:
    """Write latents (N, C, H, W) and their classes (N,) atomically.

    `facts` become the metadata's only entry, 'about', as JSON: the format keeps no order of
    several, and equal latents make equal files.
    """
    tensors = {"latents": latents.contiguous(), "labels": labels.contiguous()}
    write_tensors(path, tensors, {"about": json.dumps(facts)})
