"""Text for outputs of any encoding, such as cp1252 of a redirected output on Windows."""

from __future__ import annotations

import codecs
import io
from typing import TextIO

SIGNS = {
    "↓": "v", "↑": "^", "→": "->", "±": "+-", "≥": ">=", "≤": "<=", "×": "x", "·": ".", "…": "...",
    "–": "-", "—": "-", "−": "-", "“": '"', "”": '"', "’": "'", "━": "-", "╸": "-", "╺": "-",
}  # fmt: skip
"""What is printed for a sign that the encoding lacks; others become escapes such as \\u4e2d."""
HANDLER = "guidance-bench-signs"


def printing_anything(stream: TextIO | None) -> None:
    """Let a stream print every character, so that no command fails at its output."""
    codecs.register_error(HANDLER, _fallback)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=HANDLER)


def _fallback(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(SIGNS.get(sign, ascii(sign)[1:-1]) for sign in lacking), error.end
