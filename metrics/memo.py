"""Results of costly functions of arrays: remembered in this process, or kept by a store.

A `Store` belongs to whoever uses the metrics, which know no files: `keep_in` attaches one to a set.
From then on functions that are marked `kept` ask it for the results that depend on that set alone.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from metrics.base import SampleSet

P = ParamSpec("P")
R = TypeVar("R")
AnyArray = npt.NDArray[Any]
Arrays = dict[str, AnyArray]


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


class Store(Protocol):
    """Keeps results between processes."""

    def __call__(
        self, name: str, arguments: Sequence[str], compute: Callable[[], Arrays]
    ) -> Arrays:
        """What `compute` returns, read-only and owning its data, perhaps from an earlier call.

        `name` is the function's; `arguments` describe the content of all its arguments.
        """


@dataclass
class _Attached:
    array: weakref.ref[AnyArray]
    store: Store
    content: str = ""
    """SHA-256 of the array, once something asks for it."""


_attached: dict[int, _Attached] = {}


def keep_in(store: Store, samples: SampleSet) -> None:
    """From now on keep in `store` what is costly to compute of this set alone.

    These are the radii of neighbours, sums of kernels and roots of covariances. The arrays must be
    read-only, as `Accumulator.finish` leaves them. ValueError if not.
    """
    for features in samples.features.values():
        _attach(features, store)
    for moments in samples.moments.values():
        _attach(moments.cov, store)


def inherit(parent: AnyArray, child: AnyArray, how: str) -> None:
    """Keep the results of `child` too if those of `parent` are, which alone decides it by `how`."""
    known = _known(parent)
    if known is not None:
        content = hashlib.sha256(f"{_content(known, parent)} {how}".encode()).hexdigest()
        _attach(child, known.store, content)


def kept(name: str, make: Callable[..., R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function of arrays of kept sets, of whole numbers and of values with a full `repr`.

    It returns an array, or a tuple of arrays that `make` builds from its parts. The store keeps
    its results if all of its arrays of fractions belong to kept sets.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            found = _described(bound.arguments)
            if found is None:
                return function(*args, **kwargs)
            store, arguments = found

            def compute() -> Arrays:
                result: Any = function(*args, **kwargs)
                parts = (result,) if isinstance(result, np.ndarray) else tuple(result)
                return {f"{place:03}": part for place, part in enumerate(parts)}

            arrays = store(name, arguments, compute)
            return make(*(arrays[place] for place in sorted(arrays)))

        return wrapper

    return decorate


def only(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`make` for functions that return one array."""
    return array


def content_digest(arrays: Mapping[str, AnyArray], about: Mapping[str, Any]) -> str:
    """SHA-256 of arrays under their names, and of `about`, which goes to JSON."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _attach(array: AnyArray, store: Store, content: str = "") -> None:
    if array.flags.writeable:
        raise ValueError("only results of read-only arrays can be kept")
    identity = id(array)
    gone = weakref.ref(array, lambda _: _attached.pop(identity, None))
    _attached[identity] = _Attached(gone, store, content)


def _known(array: AnyArray) -> _Attached | None:
    known = _attached.get(id(array))
    return known if known is not None and known.array() is array else None


def _content(known: _Attached, array: AnyArray) -> str:
    if not known.content:
        known.content = content_digest({"": array}, {})
    return known.content


def _described(arguments: Mapping[str, Any]) -> tuple[Store, list[str]] | None:
    """Where results of these arguments are kept, and their content; None if they are not."""
    store: Store | None = None
    described: list[str] = []
    places: dict[int, int] = {}
    for value in arguments.values():
        if not isinstance(value, np.ndarray):
            described.append(repr(value))
            continue
        # One array given twice may mean a set with itself, which equal content does not.
        place = places.setdefault(id(value), len(places))
        known = _known(value)
        if known is not None:
            store = known.store
            described.append(f"{place} {_content(known, value)}")
        elif value.dtype.kind in "iu":
            described.append(f"{place} {content_digest({'': value}, {})}")
        else:
            return None
    return None if store is None else (store, described)
