"""Errors that the user can fix: one sentence, no traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


LONGEST = 300
"""Characters of an untrusted text in a message."""
FEW = 12
"""Names that a message lists."""


def visible(text: str) -> str:
    """Untrusted text as one line without control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def plain(name: str) -> str:
    r"""A file's name as text that UTF-8 can store: other bytes become escapes such as '\xe9'."""
    return _SURROGATE.sub(lambda m: f"\\x{ord(m[0]) & 0xFF:02x}", name)


def shown(name: str) -> str:
    """An untrusted name as at most 80 ASCII characters."""
    return ascii(name[:80])[1:-1]


def counted(count: int, noun: str) -> str:
    """A count with its noun: '1 cell', '1,200 cells', '0 classes'."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


class UserError(Exception):
    """Bad input: what was given, what is allowed, what to do. `code` is the exit status."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(visible(message))
        self.code = code


_SURROGATE = re.compile("[\ud800-\udfff]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
ALWAYS = ("name", "summary")
"""What a registered class of any kind states."""
OF_PLUGIN = " To use your own: --plugin FILE."


def unknown(kind: str, got: str, allowed: Iterable[str], more: str = "") -> UserError:
    """The error for an unknown name, with the closest match, all names, and `more`."""
    names = sorted(allowed)
    folded = {name.lower(): name for name in reversed(names)}
    swapped = [name for name in reversed(folded) if sorted(name) == sorted(got.lower())]
    near = swapped or difflib.get_close_matches(got.lower(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean {folded[near[0]]!r}?" if near else ""
    return UserError(f"Unknown {kind} {got!r}.{hint} Available: {', '.join(names)}.{more}", code=2)


def unknown_method(got: str, allowed: Iterable[str], imported: Iterable[str]) -> UserError:
    """The error for an unknown method, which names those whose networks are `imported`."""
    only = ", ".join(sorted(imported))
    return unknown("method", got, allowed, f" Only from bench import: {only}.{OF_PLUGIN}")


def said(error: Exception) -> str:
    """An exception's message in one line without a final period, to end a sentence."""
    text = str(error) or type(error).__name__
    return visible(text[:LONGEST]).rstrip(".")


def told(error: BaseException) -> str:
    """An exception's class and message in one line, with the name that a missing attribute has."""
    text = f"{type(error).__name__}: {error}"
    name, thing = getattr(error, "name", None), getattr(error, "obj", None)
    if isinstance(error, AttributeError) and isinstance(name, str) and thing is not None:
        have = [part for part in dir(thing) if not part.startswith("_")]
        near = difflib.get_close_matches(name, have, n=1)
        if near:
            text += f" (did you mean {near[0]!r}?)"
        elif len(have) <= FEW:
            text += f" (it has {', '.join(have)})"
    return visible(text)


def explain(error: ValidationError) -> str:
    """A pydantic error in one line: the first three problems with their places."""
    found = []
    for item in error.errors(include_url=False)[:3]:
        where = ".".join(str(part) for part in item["loc"]) or "the whole"
        found.append(visible(f"{where[:LONGEST]}: {item['msg'][:LONGEST].lower()}"))
    more = error.error_count() - len(found)
    return "; ".join(found) + (f"; and {more} more" if more > 0 else "")


def check_whole(noun: str, cls: type, parts: Iterable[str] = ALWAYS) -> None:
    """TypeError with what a class lacks: attributes in `parts`, and abstract members."""
    lacking = [part for part in parts if not hasattr(cls, part)]
    lacking += sorted(getattr(cls, "__abstractmethods__", ()))
    if lacking:
        raise TypeError(f"{noun} {cls.__qualname__} lacks {', '.join(lacking)}")


def check_name(kind: str, name: str) -> str:
    """`name`; UserError if it cannot be a folder's name."""
    if _NAME.fullmatch(name) is None:
        raise UserError(
            f"{kind} name {name!r} cannot be a folder: use letters, digits, '.', '_' and '-', "
            "starting with a letter or digit.",
            code=2,
        )
    return name
