"""Costly results of a reference set on disk, named by the content that they depend on.

A set is named to `keep_results` once; from then on the functions that are marked `kept_on_disk`
load what they found out about it before, and compute the rest as ever.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from metrics.archive import DAMAGE, content_digest, load_arrays
from metrics.base import SampleSet
from metrics.damage import tell_damaged
from metrics.files import atomic_file

P = ParamSpec("P")
R = TypeVar("R")
AnyArray = npt.NDArray[Any]
Arrays = dict[str, AnyArray]

LIBRARIES = ("numpy", "scipy", "torch")
"""Whose versions decide the last digits."""


def remembered_on_disk(
    folder: Path, name: str, parts: Mapping[str, Any], compute: Callable[[], Arrays]
) -> Arrays:
    """What `compute` returns, from a file in `folder` if one holds it; read-only arrays.

    `parts` is everything that the result depends on, as JSON: their hash is the file's name and is
    in it, so that nothing else can be found under it. A file that does not have the checksum of
    its content is replaced.
    """
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    path = folder / f"{name}-{key[:24]}.npz"
    arrays = _load(path, key)
    if arrays is None:
        arrays = compute()
        checksum = np.array([content_digest(arrays, {"key": key})])
        with atomic_file(path) as file:
            np.savez(file, allow_pickle=False, checksum=checksum, **arrays)
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


def _load(path: Path, key: str) -> Arrays | None:
    try:
        arrays = load_arrays(path)
        stored = str(arrays.pop("checksum")[0])
        if stored == content_digest(arrays, {"key": key}):
            return arrays
    except FileNotFoundError:
        return None
    except DAMAGE:
        pass
    tell_damaged(path)
    return None


@dataclass
class _Kept:
    array: weakref.ref[AnyArray]
    folder: Path
    content: str = ""
    """SHA-256 of the array, once something asks for it."""


_kept: dict[int, _Kept] = {}


def keep_results(samples: SampleSet, folder: Path) -> None:
    """From now on keep in `folder` what is costly to compute of this set alone.

    These are the radii of neighbours, sums of kernels and roots of covariances. The arrays must be
    read-only, as `Accumulator.finish` and `load_sample_set` leave them. ValueError if not.
    """
    for features in samples.features.values():
        _keep(features, folder)
    for moments in samples.moments.values():
        _keep(moments.cov, folder)


def inherit(parent: AnyArray, child: AnyArray, how: str) -> None:
    """Keep the results of `child` too if those of `parent` are, which alone decides it by `how`."""
    known = _known(parent)
    if known is not None:
        content = f"{_content(known, parent)} {how} {code_version()}"
        _keep(child, known.folder, hashlib.sha256(content.encode()).hexdigest())


def _keep(array: AnyArray, folder: Path, content: str = "") -> None:
    if array.flags.writeable:
        raise ValueError("only results of read-only arrays can be kept")
    identity = id(array)
    gone = weakref.ref(array, lambda _: _kept.pop(identity, None))
    _kept[identity] = _Kept(gone, folder, content)


def _known(array: AnyArray) -> _Kept | None:
    known = _kept.get(id(array))
    return known if known is not None and known.array() is array else None


def _content(known: _Kept, array: AnyArray) -> str:
    if not known.content:
        known.content = content_digest({"": array}, {})
    return known.content


@functools.cache
def code_version() -> str:
    """SHA-256 of the source of all estimators, and of the libraries' versions."""
    digest = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in LIBRARIES).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def kept_on_disk(name: str, make: Callable[..., R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function of kept arrays, of whole numbers and of values with a complete `repr`.

    It returns an array, or a tuple of arrays that `make` builds from its parts. Its results are
    kept if all of its arrays of fractions are kept ones.
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
            folder, arguments = found

            def compute() -> Arrays:
                result: Any = function(*args, **kwargs)
                parts = (result,) if isinstance(result, np.ndarray) else tuple(result)
                return {f"{place:03}": part for place, part in enumerate(parts)}

            parts = {"function": name, "code": code_version(), "arguments": arguments}
            arrays = remembered_on_disk(folder, name, parts, compute)
            return make(*(arrays[place] for place in sorted(arrays)))

        return wrapper

    return decorate


def only(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`make` for functions that return one array."""
    return array


def _described(arguments: Mapping[str, Any]) -> tuple[Path, list[str]] | None:
    """Where results of these arguments are kept, and their content; None if they are not."""
    folder: Path | None = None
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
            folder = known.folder
            described.append(f"{place} {_content(known, value)}")
        elif value.dtype.kind in "iu":
            described.append(f"{place} {content_digest({'': value}, {})}")
        else:
            return None
    return None if folder is None else (folder, described)
