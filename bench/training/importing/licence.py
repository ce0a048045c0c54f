"""The licence of imported weights, as far as their folder or file states one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bench.system.errors import shown
from bench.system.files import read_whole

KEYS = ("license", "licence", "modelspec.license")
"""Names of a licence in files of weights."""
FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "LICENCE.txt", "COPYING")
MOST = 1 << 20
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)
_LINE = re.compile(r"^(license|license_name):[ \t]*(?:\n[ \t]*-[ \t]*)?([^\s#].*)$", re.MULTILINE)


def licence_of(folders: Iterable[Path]) -> str:
    """The licence that the first such folder states, with the file that does, or ''.

    From the front matter of README.md, or else the first line of a licence's file.
    """
    for folder in folders:
        front = _FRONT.match(_text(folder / "README.md"))
        named = dict(_LINE.findall(front[1])) if front else {}
        name = named.get("license", "")
        if name.strip("'\" ") in ("", "other"):
            name = named.get("license_name", name)
        if name:
            return licence(name.strip("'\" "), "README.md")
        for file in FILES:
            lines = _text(folder / file).split("\n")
            for line in filter(None, map(str.strip, lines)):
                return licence(line, file)
    return ""


def licence(name: str, source: str) -> str:
    """An untrusted name of a licence with the file that states it."""
    return f"{shown(name)} ({source})"


def _text(path: Path) -> str:
    try:
        return read_whole(path, MOST).decode("utf-8", "replace")
    except OSError:
        return ""
