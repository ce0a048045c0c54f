"""Checks of what plugins register against the interface that it implements."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import FunctionType
from typing import Any, ClassVar, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from bench.system.errors import ALWAYS, check_whole, visible


def check_class(
    noun: str, cls: type, base: type, positional: Sequence[str] = (), named: Sequence[str] = ()
) -> None:
    """TypeError with all that a class lacks of its interface `base`, or that has another type.

    Types are those that `base` annotates. Methods must take the arguments of those that they
    override. An instance is made with `positional` arguments and those `named`.
    """
    stated = {name for name, hint in _hints(base).items() if get_origin(hint) is ClassVar}
    check_whole(noun, cls, sorted({*ALWAYS, *stated}))
    wrong = [*_wrong_types(cls, base), *_wrong_methods(cls, base)]
    try:
        inspect.signature(cls).bind(*positional, **dict.fromkeys(named))
    except TypeError:
        arguments = ", ".join([*positional, *(f"{name}=..." for name in named)])
        wrong.append(f"__init__ should take ({arguments})")
    if wrong:
        raise TypeError(f"{noun} {cls.__qualname__}: {'; '.join(wrong)}")


def check_object(noun: str, thing: object, base: type) -> None:
    """TypeError with all attributes that an instance lacks, or that have another type."""
    lacking = [name for name in _hints(base) if not hasattr(thing, name)]
    what = f"{noun} {getattr(thing, 'name', type(thing).__name__)!r}"
    if lacking:
        raise TypeError(f"{what} lacks {', '.join(lacking)}")
    if wrong := [*_wrong_types(thing, base)]:
        raise TypeError(f"{what}: {'; '.join(wrong)}")


@cache
def _hints(base: type) -> Mapping[str, Any]:
    """The public attributes that a class annotates."""
    return {n: h for n, h in get_type_hints(base).items() if not n.startswith("_")}


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint.__args__[0] if get_origin(hint) is ClassVar else hint)


def _wrong_types(thing: object, base: type) -> Iterator[str]:
    hints = dict.fromkeys(ALWAYS, str) | dict(_hints(base))
    for name, hint in hints.items():
        value = inspect.getattr_static(thing, name, None)
        if not hasattr(thing, name) or hasattr(value, "__get__"):  # such as a property
            continue
        value = getattr(thing, name)
        try:
            given = frozenset(value) if isinstance(value, set) else value
            given = dict(value) if isinstance(value, Mapping) else given
            found = _adapter(hint).validate_python(given, strict=True)
            if found != given:  # pydantic makes objects of dictionaries
                yield visible(f"{name} should be {hint}, got {value!r:.80}")
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = "".join(f"[{part!r}]" for part in first["loc"])
            problem = first["msg"].removeprefix("Input ")
            yield visible(f"{name}{place} {problem}, got {first['input']!r:.80}")


def _wrong_methods(cls: type, base: type) -> Iterator[str]:
    for name, own in vars(base).items():
        overridden = inspect.getattr_static(cls, name)
        public = name == "__call__" or not name.startswith("_")
        if not (public and isinstance(own, FunctionType)) or overridden is own:
            continue
        if not isinstance(overridden, FunctionType):
            if not callable(getattr(cls, name)):
                yield f"{name} should be a method"
            continue
        parameters = list(inspect.signature(own).parameters.values())
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        named = {p.name: None for p in parameters if p.kind is p.KEYWORD_ONLY}
        try:
            inspect.signature(overridden).bind(*positional, **named)
        except TypeError:
            plain = [p.replace(annotation=p.empty) for p in parameters]
            yield f"{name} should take {inspect.Signature(plain)}"
