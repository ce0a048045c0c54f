"""Which names a prepared data set may have."""

from __future__ import annotations

from bench.data.base import DATASETS
from bench.data.card import CIFAR10_CLASSES, CIFAR10_SHAPE
from bench.data.decode import LOSSY, Decoded, Geometry
from bench.data.sources import Listing
from bench.system.errors import UserError, check_name


def check_data_name(name: str) -> str:
    """`name` if a prepared data set may have it, otherwise a UserError."""
    check_name("data set", name)
    if name in DATASETS:
        raise UserError(
            f"The name {name!r} is taken by a built-in data set or a plugin's; choose another with "
            "--dataset.",
            code=2,
        )
    return name


def check_reserved(name: str, listing: Listing, geometry: Geometry) -> None:
    """UserError if something else is to be called CIFAR-10, whose published numbers are drawn."""
    if name != "cifar10":
        return
    numbered = tuple(str(k) for k in range(10))
    if listing.class_names not in (CIFAR10_CLASSES, numbered) or geometry.size is not None:
        raise UserError(_reserved("these are other classes, or resized"), code=2)
    if listing.shape not in (None, CIFAR10_SHAPE):
        raise UserError(_reserved(f"these are {listing.shape}"), code=2)


def check_original(name: str, what: str, image: Decoded) -> None:
    """UserError if an image cannot be one of CIFAR-10's own, where that is its name."""
    if name == "cifar10" and (image.format in LOSSY or image.pixels.shape != CIFAR10_SHAPE):
        size = "x".join(map(str, image.pixels.shape))
        raise UserError(_reserved(f"{what!r} is {image.format or 'raw'} of {size}"), code=2)


def _reserved(why: str) -> str:
    return (
        "The name 'cifar10' is for the original pixels of CIFAR-10, beside which published numbers "
        f"are drawn, and {why}: use another name, such as --dataset cifar10-jpeg."
    )
