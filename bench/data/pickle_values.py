"""Values of an untrusted pickle: replacements of foreign objects, bounds on what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.data.pickle_bytes import refuse

MAX_DEPTH = 200
MAX_SIZE = 2_000_000


@dataclass(frozen=True, eq=False)
class Named:
    """Replaces an object of another program; holds nothing of it and does nothing.

    `builds`: it replaces a class, so that a call of it gives another replacement.
    """

    name: str
    builds: bool = False


Strangers = Callable[[str, str], Named | None]
"""The replacement for a module and a name outside a table; None: it is refused."""


@dataclass(slots=True, eq=False)
class Item:
    """A value on the stack, with the depth and the number of objects below it.

    `fresh`: a container made here, which may be filled. `used`: part of another value. It can no
    longer change, so that cycles cannot arise.
    """

    value: Any
    depth: int = 1
    size: int = 1
    fresh: bool = False
    used: bool = False

    def take_in(self, children: Iterable[Item]) -> None:
        """Count `children` as parts; UserError if there are too many, or too deep."""
        for child in children:
            child.used = True
            self.depth = max(self.depth, child.depth + 1)
            self.size += child.size
        if self.depth > MAX_DEPTH:
            raise refuse(f"it nests more than {MAX_DEPTH} levels deep")
        if self.size > MAX_SIZE:
            raise refuse(f"it unfolds into more than {MAX_SIZE:,} objects")


def check_bounds(value: object) -> None:
    """UserError if `value` contains itself, is too deep, or unfolds into too many objects."""
    done: dict[int, Item] = {}
    path: list[tuple[object, Item, Iterator[object]]] = []
    under_way = set()

    def enter(part: object) -> None:
        under_way.add(id(part))
        path.append((part, Item(part), iter(_parts(part))))

    enter(value)
    while path:
        part, item, rest = path[-1]
        for child in rest:
            if id(child) in under_way:
                raise refuse("a part of it that is needed contains itself")
            if id(child) not in done:
                enter(child)
                break
            item.take_in([done[id(child)]])
        else:
            path.pop()
            under_way.remove(id(part))
            done[id(part)] = item
            if path:
                path[-1][1].take_in([item])


def _parts(value: object) -> Iterable[object]:
    """What a walk over `value` visits; values of other types have no parts."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    return getattr(value, "__dict__", {}).values() if hasattr(value, "__setstate__") else ()
