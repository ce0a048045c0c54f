"""The bytes of an untrusted pickle: never more than there are, and large ones only when needed."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, cast

from bench.system.errors import UserError

LINE = 4096


def refuse(what: str) -> UserError:
    """The error for a pickle; `what` ends the sentence."""
    return UserError(f"The pickle is refused: {what}.")


def shown_names(*parts: object) -> str:
    """Untrusted names, short and free of control characters."""
    text = ".".join(part if isinstance(part, str) else repr(type(part)) for part in parts)
    return ascii(text[:100])[1:-1]


class Source:
    """A stream that refuses to read more bytes than are left."""

    def __init__(self, data: BinaryIO) -> None:
        self.data = data
        start = data.tell()
        self.left = data.seek(0, io.SEEK_END) - start
        data.seek(start)

    def read(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= self.left:
            raise refuse(f"it declares {count:,} bytes where {self.left:,} are left")
        found = self.data.read(count)
        if len(found) != count:
            raise refuse("it ends early")
        self.left -= count
        return found

    def number(self, width: int) -> int:
        """The next `width` bytes as a whole number."""
        return int.from_bytes(self.read(width), "little")

    def later(self, length: int, *, text: bool) -> Later:
        """The next bytes, which are skipped."""
        if length > self.left:
            raise refuse(f"it declares {length:,} bytes where {self.left:,} are left")
        start = self.data.tell()
        self.data.seek(start + length)
        self.left -= length
        return Later(self.data, start, length, "text" if text else "bytes")

    def readline(self) -> bytes:
        """The next line, at most LINE bytes long, with its end."""
        found = self.data.readline(min(LINE, self.left))
        self.left -= len(found)
        if not found.endswith(b"\n"):
            raise refuse("a line of text in it is too long or ends early")
        return found


@dataclass(frozen=True, eq=False)
class Later:
    """`length` bytes of `file` from `start` on, read only when somebody needs them.

    `kind`: "bytes" as they are, "text" in UTF-8, or "latin1": bytes that are written as text with
    one character each, as protocols before 3 do.
    """

    file: BinaryIO
    start: int
    length: int
    kind: Literal["bytes", "text", "latin1"] = "bytes"

    def open(self) -> BinaryIO:
        """A stream of the bytes that leaves the position of `file` as it is."""
        window = cast(BinaryIO, io.BufferedReader(_Window(self)))
        if self.kind == "bytes":
            return window
        try:
            return io.BytesIO(window.read().decode("utf-8", "surrogatepass").encode("latin1"))
        except UnicodeError:
            raise UserError("Bytes in the file are written as a text that holds more.") from None


def encoded(text: object, encoding: object) -> bytes | Later:
    """Replaces _codecs.encode, which protocols before 3 call for every bytes object."""
    if encoding != "latin1":
        raise UserError("The file has bytes in an encoding other than latin1.")
    if isinstance(text, Later) and text.kind == "text":
        return replace(text, kind="latin1")
    if type(text) is not str:
        raise UserError("The file has bytes that are not given as text.")
    return text.encode("latin1")


class _Window(io.RawIOBase):
    def __init__(self, part: Later) -> None:
        self.part, self.position = part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.part.length}[whence]
        self.position = base + offset
        return self.position

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        part = self.part
        count = max(0, min(len(buffer), part.length - self.position))
        before = part.file.tell()
        part.file.seek(part.start + self.position)
        found = part.file.readinto(memoryview(buffer)[:count])  # type: ignore[attr-defined]
        part.file.seek(before)
        self.position += found
        return int(found)
