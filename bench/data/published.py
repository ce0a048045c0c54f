"""Published data sets, whose names are kept for their whole and original content."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bench.data.decode import LOSSY, Decoded, Geometry
from bench.data.sources import Listing
from bench.system.errors import UserError

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
"""In the official order, which is alphabetical."""


_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class PublishedSet:
    """Shape (C, H, W), number of classes and of images; class names unless only numbers are known.

    `reference_n` has the allowed sizes of the test or val split, 0 if it may be absent.
    """

    title: str
    shape: tuple[int, int, int]
    classes: int
    train_n: int
    reference_n: tuple[int, ...]
    class_names: tuple[str, ...] = ()


_CIFAR10 = PublishedSet("CIFAR-10", (3, 32, 32), 10, 50_000, (10_000,), CIFAR10_CLASSES)
PUBLISHED = {
    "cifar10": _CIFAR10,
    "cifar10-uncond": _CIFAR10,
    "cifar100": PublishedSet("CIFAR-100", (3, 32, 32), 100, 50_000, (10_000,)),
    **{
        f"imagenet{side}": PublishedSet(
            f"ImageNet at {side}x{side}", (3, side, side), 1000, 1_281_167, (0, 50_000)
        )
        for side in (32, 64, 128, 256, 512)
    },
}
"""By the name in tables of published numbers."""


def check_class_order(name: str, classes: Sequence[str]) -> str:
    """'' or a warning about the classes that a conditional network is given for a data set.

    Official networks number the classes of CIFAR-10 as published, and those of ImageNet by the
    order of their WordNet ids. UserError if the data set has the same classes in another order.
    """
    found = tuple(classes)
    wanted = CIFAR10_CLASSES if {*found} == {*CIFAR10_CLASSES} else tuple(sorted(found))
    ids = all(_WORDNET.fullmatch(label) for label in found)
    if (ids or wanted == CIFAR10_CLASSES) and found != wanted:
        place = next(k for k, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
        raise UserError(
            f"The data set {name!r} has the class {found[place]!r} as number {place}, where "
            f"official networks have {wanted[place]!r}: prepare it from folders of its classes."
        )
    if ids or wanted == CIFAR10_CLASSES:
        return ""
    return (
        f"The classes of {name!r} ({', '.join(found[:3])}, ...) do not show their order: the "
        "network must have been trained with the same numbers. Downsampled ImageNet numbers its "
        "classes differently from networks trained on folders."
    )


def check_reserved(name: str, listing: Listing, geometry: Geometry) -> None:
    """UserError for another data set under the name of a published one."""
    wanted = PUBLISHED.get(name)
    if wanted is None:
        return
    count, train_n = len(listing.class_names), listing.train_n
    numbered = tuple(str(k) for k in range(count))
    others = wanted.class_names and listing.class_names not in (wanted.class_names, numbered)
    if count != wanted.classes or others or geometry.size is not None:
        raise _reserved(name, wanted, "these are other classes, or resized")
    if listing.shape not in (None, wanted.shape):
        raise _reserved(name, wanted, f"these are {listing.shape}")
    if (why := _other_size(wanted, train_n, len(listing.labels) - train_n)) is not None:
        raise _reserved(name, wanted, why)


def check_original(name: str, what: str, image: Decoded) -> None:
    """UserError if a data set with the name of a published one has an image of another form."""
    wanted = PUBLISHED.get(name)
    if wanted is not None and (image.format in LOSSY or image.pixels.shape != wanted.shape):
        size = "x".join(map(str, image.pixels.shape))
        raise _reserved(name, wanted, f"{what!r} is {image.format or 'raw'} of {size}")


def check_whole(
    name: str, shape: tuple[int, int, int], classes: int, train_n: int, reference_n: int
) -> None:
    """UserError for a prepared set with the name of a published one that is not whole."""
    wanted = PUBLISHED.get(name)
    if wanted is None:
        return
    why = _other_size(wanted, train_n, reference_n)
    if why is not None or (shape, classes) != (wanted.shape, wanted.classes):
        raise _reserved(name, wanted, why or f"this has {classes} classes of {shape}")


def title_of(
    name: str, listing: Listing, shape: tuple[int, ...], *, resized: bool, lossy: bool
) -> str:
    """The displayed name: CIFAR-10 by its classes, shape and size, otherwise `name`."""
    n, train_n = len(listing.labels), listing.train_n
    if (listing.class_names, shape) != (CIFAR10_CLASSES, _CIFAR10.shape) or resized:
        return name
    if _other_size(PUBLISHED["cifar10"], train_n, n - train_n) is not None:
        return name
    return "CIFAR-10 (JPEG)" if lossy else "CIFAR-10"


def _other_size(wanted: PublishedSet, train_n: int, reference_n: int) -> str | None:
    """None, or the difference in the number of images."""
    if train_n == wanted.train_n and reference_n in wanted.reference_n:
        return None
    return f"this has {train_n:,} training and {reference_n:,} reference images"


def _reserved(name: str, wanted: PublishedSet, why: str) -> UserError:
    test = f" and {max(wanted.reference_n):,} test" if wanted.reference_n else ""
    return UserError(
        f"The name {name!r} is for the original pixels of {wanted.title} with all its "
        f"{wanted.train_n:,} training{test} images, which are compared with published numbers, and "
        f"{why}: use another name, such as --dataset {name}-{'jpeg' if 'JPEG' in why else 'part'}.",
        code=2,
    )
