"""Folders, tar and zip archives as one thing: files by name, read as a stream.

Nothing is extracted to disk. Names are relative, with '/', and never lead out of the tree.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, cast

from bench.system.errors import UserError, said
from bench.system.files import check_regular

MAX_FILES = 20_000_000
DAMAGED = (
    EOFError,
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    gzip.BadGzipFile,
    NotImplementedError,  # of a zip: a compression that Python does not know
    RuntimeError,  # of a zip: an encrypted member
)
_MALFORMED = (*DAMAGED, ValueError, LookupError, ArithmeticError, MemoryError, struct.error)
"""What tarfile and zipfile also raise, on numbers and texts in headers that are none."""
HEADER_MOST = 1 << 20
"""Bytes of a tar header: of a long name, or attributes, which tarfile reads as a whole."""
UNPACKED_MOST = 64 << 20
RATIO = 200
"""A file above UNPACKED_MOST bytes that is packed more than this is a way to fill memory."""


@dataclass(frozen=True)
class File:
    """A file by its name in the tree and its size in bytes."""

    name: str
    size: int


class Tree(ABC):
    """Files by name. `path` is the folder or archive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def files(self) -> list[File]:
        """All files, sorted by name; a name that leaves the tree is a UserError."""

    @abstractmethod
    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """The named files, in any order; each is open until the next is asked for."""

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """One file."""
        for _, file in self.read({name}):
            yield file
            return
        raise UserError(f"{self.path} has no file {name!r}.")


class Folder(Tree):
    """A folder on disk; links within it are followed."""

    def files(self) -> list[File]:
        """All files below, without hidden ones."""
        found: list[File] = []
        self._walk(str(self.path), "", found, frozenset())
        return sorted(found, key=lambda f: f.name)

    def _walk(self, folder: str, prefix: str, found: list[File], above: frozenset[str]) -> None:
        real = os.path.realpath(folder)
        if real in above:
            raise UserError(f"{folder} is a link to a folder above it; remove the link.")
        with os.scandir(folder) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                name = prefix + entry.name
                if entry.is_dir():
                    self._walk(entry.path, f"{name}/", found, above | {real})
                elif entry.is_file():
                    found.append(File(name, entry.stat().st_size))
                else:
                    raise UserError(f"{entry.path} is neither a file nor a folder; remove it.")

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """In the order of their names."""
        for name in sorted(names):
            with (self.path / name).open("rb") as file:
                yield name, file


class Tar(Tree):
    """A tar archive, plain or compressed by gzip, bzip2 or xz, read from front to end."""

    def files(self) -> list[File]:
        """All regular files; links, devices and files twice are a UserError."""
        found = {name: File(name, info.size) for name, info, _ in self._members(distinct=True)}
        return sorted(found.values(), key=lambda f: f.name)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """In the archive's order."""
        wanted = names if isinstance(names, (set, frozenset, dict)) else set(names)
        left = len(wanted)
        for name, info, archive in self._members():
            if name not in wanted:
                continue
            content = cast("IO[bytes]", archive.extractfile(info))
            yield name, content
            left -= 1
            if left == 0:
                return

    @contextmanager
    def _opened(self) -> Iterator[tuple[tarfile.TarFile, _Bounded]]:
        with opened_tar(self.path) as stream:
            bounded = _Bounded(stream)
            with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r:") as archive:
                bounded.most = None
                yield archive, bounded

    def _members(
        self, *, distinct: bool = False
    ) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        seen: set[str] = set()
        last = "its start"
        try:
            packed = self.path.stat().st_size
            with self._opened() as (archive, bounded):
                while (info := bounded.header(archive)) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
                    if info.isdir():
                        continue
                    name = _inside(self.path, info.name)
                    last = repr(name)
                    if info.issym() or info.islnk():
                        raise UserError(
                            f"{self.path} has a link as its member {name!r}, to "
                            f"{info.linkname!r}; pack the files themselves (tar --dereference "
                            "--hard-dereference)."
                        )
                    if not info.isfile() or info.issparse():  # sparse: few bytes, any size
                        raise UserError(f"{self.path} has a member {name!r} that is no plain file.")
                    if _hidden(name):
                        continue
                    _check_packed(self.path, name, info.size, packed)
                    if distinct:
                        _once(self.path, name, seen)
                    yield name, info, archive
                # A whole archive ends with a block of zeros, which is behind the last member.
                if cast("IO[bytes]", archive.fileobj).tell() <= archive.offset:
                    raise EOFError("it has no end")
        except _MALFORMED as error:
            raise _damaged(self.path, f"after {last}", error) from None


class Zip(Tree):
    """A zip archive."""

    def files(self) -> list[File]:
        """All files; links and files twice are a UserError."""
        seen: set[str] = set()
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = []
                for info in archive.infolist():
                    if info.is_dir():
                        continue
                    name = _inside(self.path, info.filename)
                    if (info.external_attr >> 16) & 0o170000 == 0o120000:
                        raise UserError(
                            f"{self.path} has a link as its member {name!r}; pack the files "
                            "themselves."
                        )
                    if _hidden(name):
                        continue
                    _once(self.path, name, seen)
                    _check_packed(self.path, name, info.file_size, info.compress_size)
                    found.append(File(name, info.file_size))
        except _MALFORMED as error:
            raise _damaged(self.path, "in its table of contents", error) from None
        return sorted(found, key=lambda f: f.name)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """In the archive's order."""
        wanted = names if isinstance(names, (set, frozenset, dict)) else set(names)
        last = "its start"
        try:
            with zipfile.ZipFile(self.path) as archive:
                for info in archive.infolist():
                    name = _inside(self.path, info.filename)
                    if info.is_dir() or name not in wanted:
                        continue
                    last = repr(name)
                    with archive.open(info) as file:
                        yield name, file
        except (OSError, *DAMAGED) as error:
            _raise_refusals(error)
            raise _damaged(self.path, f"at {last}", error) from None


class _Bounded:
    """A stream of a tar, of which no more than `most` bytes are read at a time.

    tarfile believes what a header says about its own length, and a small archive can say anything.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.most: int | None = HEADER_MOST
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, or tarfile's own error."""
        if self.most is not None and not 0 <= size <= self.most:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)

    def header(self, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        """The archive's next member."""
        self.most = HEADER_MOST
        try:
            return archive.next()
        finally:
            self.most = None


@contextmanager
def opened_tar(path: Path) -> Iterator[IO[bytes]]:
    """A tar's own bytes, whatever packs them, told by its first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
        file.seek(0)
        if start.startswith(b"\x1f\x8b"):
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield cast("IO[bytes]", unpacked)
        elif start.startswith(b"BZh"):
            with bz2.BZ2File(file) as unpacked_bz2:
                yield cast("IO[bytes]", unpacked_bz2)
        elif start in (b"\xfd7zXZ\0",) or start.startswith(b"\x5d\0\0"):
            with lzma.LZMAFile(file) as unpacked_xz:
                yield cast("IO[bytes]", unpacked_xz)
        else:
            yield file


def open_tree(path: Path) -> Tree:
    """The folder or archive at `path`, told by its content; anything else is a UserError."""
    try:
        if path.is_dir():
            return Folder(path)
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UserError(f"Cannot read the data source {path}: {error.strerror}.", code=2) from None
    if start == b"PK\x03\x04":
        return Zip(path)
    try:
        tree = Tar(path)
        with tree._opened():
            return tree
    except (OSError, *_MALFORMED) as error:
        raise UserError(
            f"{path} is neither a folder nor a readable tar (plain, .gz, .bz2, .xz) or zip archive "
            f"({_reason(error)})."
        ) from None


@contextmanager
def damage_named(path: Path, name: str) -> Iterator[None]:
    """Turn what a damaged file raises into one sentence that names it."""
    try:
        yield
    except (OSError, *DAMAGED) as error:
        _raise_refusals(error)
        raise _damaged(path, f"at {name!r}", error) from None


def _raise_refusals(error: Exception) -> None:
    """Raise an error of the disk, which is no damage.

    zipfile asks for a place before the start of a file that has lost its first bytes, which the
    system finds invalid.
    """
    if isinstance(error, DAMAGED) or not isinstance(error, OSError):
        return
    if error.errno != errno.EINVAL or error.filename is not None:
        raise error


def reader(file: IO[bytes], name: str) -> IO[bytes]:
    """`file` itself, or its content where its bytes are those of gzip."""
    if not name.endswith(".gz"):
        return file
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file))


def strip_root(names: Collection[str], stop: Callable[[str], bool] = lambda _: False) -> str:
    """The folders that all names share, as a prefix ending in '/', or ''; ends before `stop`."""
    prefix = ""
    parents = [PurePosixPath(name).parts[:-1] for name in names]
    for level in range(min(map(len, parents), default=0)):
        shared = {parts[level] for parts in parents}
        if len(shared) != 1 or stop(part := shared.pop()):
            break
        prefix += f"{part}/"
    return prefix


def _inside(path: Path, name: str) -> str:
    """The member's name in one form, or a UserError if it would leave its folder."""
    parts = name.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or ":" in parts[0]:
        raise UserError(
            f"{path} has a member {name!r} that would leave its folder; such an archive is not "
            "read."
        )
    return "/".join(part for part in parts if part not in ("", "."))


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _once(path: Path, name: str, seen: set[str]) -> None:
    if name in seen:
        raise UserError(f"{path} has two members named {name!r}; keep one.")
    if len(seen) >= MAX_FILES:
        raise UserError(f"{path} has more than {MAX_FILES:,} members, which is not read.")
    seen.add(name)


def _check_packed(path: Path, name: str, size: int, packed: int) -> None:
    if size > UNPACKED_MOST and size > RATIO * packed:
        raise UserError(
            f"{path} has a member {name[:200]!r} that unfolds from {packed:,} bytes into {size:,}; "
            "such an archive is not read."
        )


def _damaged(path: Path, where: str, error: Exception) -> UserError:
    return UserError(f"{path} is damaged or cut off {where} ({_reason(error)}); fetch it again.")


def _reason(error: Exception) -> str:
    text = said(error)
    return text if len(text) <= 120 else f"{text[:120]}..."
