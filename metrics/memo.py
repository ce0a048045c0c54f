"""A memory for functions of arrays, keyed by the identity of the arrays."""

from __future__ import annotations

import functools
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


def remember(size: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keep the last `size` results of a function of arrays and hashable values.

    Several metrics share one costly computation, and one real set meets many generated ones.
    Only arrays that own their data and are read-only are remembered, since others may change
    under the same identity; the arrays themselves are not kept alive.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        kept: OrderedDict[Hashable, tuple[tuple[weakref.ref[Any], ...], R]] = OrderedDict()

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            values = [*args, *(kwargs[name] for name in sorted(kwargs))]
            arrays = [value for value in values if isinstance(value, np.ndarray)]
            if any(a.flags.writeable or not a.flags.owndata for a in arrays):
                return function(*args, **kwargs)
            key = (
                tuple(id(v) if isinstance(v, np.ndarray) else v for v in values),
                tuple(sorted(kwargs)),
            )
            if key in kept:
                refs, result = kept[key]
                # An identity is reused after its array is gone: then the entry is stale.
                if all(ref() is array for ref, array in zip(refs, arrays, strict=True)):
                    kept.move_to_end(key)
                    return result
            result = function(*args, **kwargs)
            kept[key] = (tuple(weakref.ref(array) for array in arrays), result)
            kept.move_to_end(key)
            while len(kept) > size:
                kept.popitem(last=False)
            return result

        return wrapper

    return decorate
