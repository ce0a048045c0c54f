"""Match the classes of generated and real samples: by name, or by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.data.labels import Classes, Labels
from bench.data.samples.card import class_folder
from bench.evaluation.sides import SampleSource

LISTED = 10
"""Classes that a message lists."""


@dataclass(frozen=True)
class Matched:
    """Labels of generated samples in the numbering of the real set, or the reason for none.

    `refused`: the samples have classes that the real set does not have, which is a mistake.
    """

    labels: Labels | None
    reason: str = ""
    refused: bool = False


def match_classes(fake: SampleSource, real: SampleSource | None, reference: str) -> Matched:
    """The classes of `fake` among those of `real`, which is None for a statistics file."""
    if real is None:
        return Matched(None, f"{reference} does not say which sample is of which class")
    if fake.classes is None:
        folders = "put each image into a folder named after its class, or give --labels"
        return Matched(None, f"{fake.name} has no classes: {folders}")
    if real.classes is None:
        folders = "put each image into a folder named after its class"
        return Matched(None, f"{real.name} has no classes: {folders}")
    if fake.data is not None and real.data is not None and fake.data.name == real.data.name:
        return Matched(fake.classes.labels)
    if fake.classes.names:
        return _by_name(fake, fake.classes, real, real.classes)
    return _by_number(fake, fake.classes.labels, real, real.classes)


def _by_name(fake: SampleSource, own: Classes, real: SampleSource, theirs: Classes) -> Matched:
    names = theirs.names or tuple(map(str, range(_count(real, theirs))))
    table: dict[str, int] = {}
    for spelling in (str, _as_number):
        for k, name in enumerate(names):
            table.setdefault(spelling(name), k)
    for k in range(len(names)):
        table.setdefault(class_folder(k, names), k)
    present = [own.names[k] for k in np.unique(own.labels)]
    found = {name: table.get(name, table.get(_as_number(name))) for name in present}
    unknown = [name for name, k in found.items() if k is None]
    if not unknown:
        numbers = {k: found[name] for k, name in enumerate(own.names) if name in found}
        return Matched(np.array([numbers[k] for k in own.labels.tolist()], np.int64))
    if len(unknown) == len(present):
        return Matched(
            None,
            f"no class of {fake.name} ({_some(present)}) is named like one of {real.name} "
            f"({_some(names)})",
        )
    known = [name for name in present if name not in unknown]
    return Matched(
        None,
        f"{fake.name} has the classes {_some(unknown)}, which {real.name} ({_some(names)}) does "
        f"not have, besides {_some(known)}, which it has: rename or remove those folders",
        refused=True,
    )


def _by_number(fake: SampleSource, labels: Labels, real: SampleSource, theirs: Classes) -> Matched:
    numbers: Mapping[int, int] = {k: k for k in range(_count(real, theirs))}
    if theirs.names and real.data is None:
        if not all(name.isascii() and name.isdigit() for name in theirs.names):
            return Matched(
                None,
                f"the classes of {fake.name} are numbers and those of {real.name} names "
                f"({_some(theirs.names)}), so they cannot be matched",
            )
        numbers = {int(name): k for k, name in enumerate(theirs.names)}
    present = np.unique(labels).tolist()
    unknown = [label for label in present if label not in numbers]
    if not unknown:
        return Matched(np.array([numbers[label] for label in labels.tolist()], np.int64))
    low, high = min(numbers), max(numbers)
    reason = (
        f"the labels of {fake.name} run from {present[0]} to {present[-1]}, and the classes of "
        f"{real.name} from {low} to {high}"
    )
    if present[0] == 1 and present[-1] == high + 1:
        reason += ": these labels start at 1, so subtract 1 from each"
    return Matched(None, reason, refused=True)


def _count(real: SampleSource, theirs: Classes) -> int:
    """One more than the largest number of a class."""
    return int(theirs.labels.max()) + 1 if real.data is None else real.data.spec.num_classes


def _as_number(name: str) -> str:
    """'7' for '07'; other names unchanged."""
    return str(int(name)) if name.isascii() and name.isdigit() else name


def _some(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:LISTED]) + (", ..." if len(every) > LISTED else "")
