"""JSON with some of its values replaced by invalid ones."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

MARKUP = "<script>alert(1)</script>"
BAD: tuple[Any, ...] = (
    10**400, 10**18, -(10**18), -1, 0, 1, 1e308, -1e308, 1e149, 5e-324, None, True, "", [], {},
    [None], MARKUP, '"><img src=x onerror=alert(1)>', "../../evil", "/evil", "C:\\evil", "a\0b",
    "\u202e", "\n\n# evil\n| a |", "a|b`c*d_e", "$\\frac{", "\\input{/etc/passwd}", "%&#{}~^",
    "=cmd()|'/c calc'!A0", "x" * 100_000, "x" * 10_000_000,
)  # fmt: skip


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all replaceable values; of each list, only the first two items."""
    if path:
        yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree[:2]):
            yield from leaves(value, (*path, index))


def replaced(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(tree)
    node = changed
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return changed


def broken(tree: Any) -> st.SearchStrategy[bytes]:
    """JSON of `tree` with one to three of its values replaced."""

    @st.composite
    def draw(make: st.DrawFn) -> bytes:
        found = tree
        for _ in range(make(st.integers(1, 3))):
            path = make(st.sampled_from(list(leaves(found)) or [()]))
            if path:
                found = replaced(found, path, make(st.sampled_from(BAD)))
        return json.dumps(found).encode()

    return draw()
