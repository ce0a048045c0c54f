"""Results of costly functions of arrays, remembered in this process or kept in a store.

Metrics know nothing of files, so their user provides the `Store`: `keep_in` attaches one to a set.
Functions that are marked `kept` then get their results that depend only on that set from it.
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

    Several metrics share one costly computation, and one real set is compared with many generated
    ones. Results are remembered only for read-only arrays that own their data, since others may
    change in place. The arrays themselves are not kept alive.
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
                # If an identity was reused after its array was deleted, the entry is stale.
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
        """The result of `compute`, perhaps from an earlier call: read-only, owning its data.

        `name` is that of the function; `arguments` describe the content of all its arguments.
        """


@dataclass
class _Attached:
    array: weakref.ref[AnyArray]
    store: Store
    content: str = ""
    """SHA-256 of the array, computed on first use."""


_attached: dict[int, _Attached] = {}


def keep_in(store: Store, samples: SampleSet) -> None:
    """From now on, keep costly results that depend only on this set in `store`.

    These are radii of neighbours, sums of kernels and roots of covariances. ValueError unless the
    arrays are read-only, as those of `Accumulator.finish` are.
    """
    for features in samples.features.values():
        _attach(features, store)
    for moments in samples.moments.values():
        _attach(moments.cov, store)


def inherit(parent: AnyArray, child: AnyArray, how: str) -> None:
    """Keep the results of `child` if those of `parent` are kept; `how` it was computed from it."""
    known = _known(parent)
    if known is not None:
        content = hashlib.sha256(f"{_content(known, parent)} {how}".encode()).hexdigest()
        _attach(child, known.store, content)


def kept(name: str, make: Callable[..., R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function whose results a store may keep, under `name`.

    Its arguments are arrays and values with an unambiguous `repr`. It returns an array, or a tuple
    of arrays that `make` builds from its parts. Results are kept if all arguments that are arrays
    of floats belong to sets with a store.
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
    """The `make` of functions that return one array."""
    return array


def content_digest(arrays: Mapping[str, AnyArray], about: Mapping[str, Any]) -> str:
    """SHA-256 of named arrays and of `about` as JSON."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _attach(array: AnyArray, store: Store, content: str = "") -> None:
    if array.flags.writeable:
        raise ValueError("results can be kept for read-only arrays only")
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
    """The store for results of these arguments and their content; None if they are not kept."""
    store: Store | None = None
    described: list[str] = []
    places: dict[int, int] = {}
    for value in arguments.values():
        if not isinstance(value, np.ndarray):
            described.append(repr(value))
            continue
        # One array passed twice means a set with itself; two equal arrays do not.
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
