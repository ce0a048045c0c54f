"""Folders, tar and zip archives behind one interface: files by name, read as a stream.

Nothing is extracted to disk. One guard serves all readers: no name and no link leads out of the
tree, no link makes a loop, no archive has a name twice or a member that unfolds into far more than
its bytes, and hidden files are left out.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import tarfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from bench.data.untrusted import DAMAGE, unfolds
from bench.system.errors import UserError, said
from bench.system.files import check_regular

FILES_MOST = 20_000_000
FILE_MOST = 256 << 20
"""Bytes of a file that is read as a whole, such as an image."""
HEADER_MOST = 1 << 20
"""Bytes of a tar header: of a long name, or attributes, which tarfile reads as a whole."""
_PACKED: Mapping[bytes, Callable[[Path, str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
    b"\x5d\0\0": lzma.open,
}


@dataclass(frozen=True)
class File:
    """A file by its name in the tree, relative and with '/', and its size in bytes."""

    name: str
    size: int


class Tree(ABC):
    """Files by name. `path` is the folder or archive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def files(self) -> list[File]:
        """All files but hidden ones, sorted by name; UserError for what the guard refuses."""

    @abstractmethod
    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """The named files in the order of `order`; each is open until the next is asked for."""

    def order(self, names: Collection[str]) -> list[str]:
        """The order in which `read` gives these files: as they are named, except in a tar."""
        return list(names)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """One file."""
        for _, file in self.read([name]):
            yield file
            return
        raise UserError(f"{self.path} has no file {name!r}.")

    def contents(
        self, names: Collection[str], most: int = FILE_MOST
    ) -> Iterator[tuple[str, bytes]]:
        """The bytes of the named files, as `read`; UserError for one of more than `most` bytes."""
        for name, file in self.read(names):
            with damage_named(self.path, name):
                content = file.read(most + 1)
            if len(content) > most:
                raise UserError(
                    f"{self.path} has the file {name!r} of more than {most:,} bytes; it is not "
                    "read."
                )
            yield name, content


class Folder(Tree):
    """A folder on disk; links within it are followed."""

    def files(self) -> list[File]:
        """All files below."""
        found: list[File] = []
        self._walk(str(self.path), "", found, ())
        return sorted(found, key=lambda f: f.name)

    def _walk(self, folder: str, prefix: str, found: list[File], above: tuple[str, ...]) -> None:
        above = (*above, os.path.realpath(folder))
        with os.scandir(folder) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                if entry.is_symlink():
                    _check_link(entry.path, above)
                name = prefix + entry.name
                if entry.is_dir():
                    self._walk(entry.path, f"{name}/", found, above)
                elif entry.is_file():
                    found.append(File(name, entry.stat().st_size))
                else:
                    raise UserError(f"{entry.path} is neither a file nor a folder; remove it.")

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """As they are named."""
        for name in names:
            check_regular(self.path / name)
            with (self.path / name).open("rb") as file:
                yield name, file


class Tar(Tree):
    """A tar archive, plain or compressed by gzip, bzip2 or xz, read from front to end."""

    def files(self) -> list[File]:
        """All regular files; links, devices and files twice are a UserError."""
        found = [File(name, info.size) for name, info, _ in self._members(set())]
        return sorted(found, key=lambda f: f.name)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """In the archive's order."""
        wanted = names if isinstance(names, (set, frozenset, dict)) else set(names)
        left = len(wanted)
        for name, info, archive in self._members():
            if name in wanted:
                yield name, cast("IO[bytes]", archive.extractfile(info))
                left -= 1
            if left == 0:
                return

    def order(self, names: Collection[str]) -> list[str]:
        """The archive's own."""
        wanted = set(names)
        return [name for name, _, _ in self._members() if name in wanted]

    @contextmanager
    def _opened(self) -> Iterator[tuple[tarfile.TarFile, _Bounded]]:
        with _unpacked(self.path) as stream:
            bounded = _Bounded(stream)
            with tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r:") as archive:
                bounded.most = None
                yield archive, bounded

    def _members(
        self, seen: set[str] | None = None
    ) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        last = "its start"
        try:
            packed = self.path.stat().st_size
            with self._opened() as (archive, bounded):
                while (info := bounded.header(archive)) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # or it keeps them all
                    if info.isdir():
                        continue
                    link = info.linkname if info.issym() or info.islnk() else None
                    name = _member(self.path, info.name, info.size, packed, link, seen)
                    last = repr(info.name)
                    if not info.isfile() or info.issparse():  # sparse: few bytes, any size
                        raise UserError(f"{self.path} has a member {name!r} that is no plain file.")
                    if not _hidden(name):
                        yield name, info, archive
                # A whole archive ends with a block of zeros, which is behind the last member.
                if cast("IO[bytes]", archive.fileobj).tell() <= archive.offset:
                    raise EOFError("it has no end")
        except DAMAGE as error:
            raise _damaged(self.path, f"after {last}", error) from None


class Zip(Tree):
    """A zip archive."""

    def files(self) -> list[File]:
        """All files; links, files twice and encrypted ones are a UserError."""
        with self._opened() as (_, entries):
            found = [File(name, info.file_size) for name, info in entries.items()]
        return sorted(found, key=lambda f: f.name)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """As they are named."""
        with self._opened() as (archive, entries):
            for name in names:
                with damage_named(self.path, name):
                    file = archive.open(entries[name])
                with file:
                    yield name, file

    @contextmanager
    def _opened(self) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
        try:
            archive = zipfile.ZipFile(self.path)
        except DAMAGE as error:
            raise _damaged(self.path, "in its table of contents", error) from None
        with archive:
            entries: dict[str, zipfile.ZipInfo] = {}
            seen: set[str] = set()
            for info in archive.infolist():
                if info.is_dir():
                    continue
                link = "" if (info.external_attr >> 16) & 0o170000 == 0o120000 else None
                sizes = info.file_size, info.compress_size
                name = _member(self.path, info.filename, *sizes, link, seen)
                if info.flag_bits & 1:
                    raise UserError(
                        f"{self.path} is encrypted ({name!r}): make it again without a password."
                    )
                if not _hidden(name):
                    entries[name] = info
            yield archive, entries


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


def _unpacked(path: Path) -> IO[bytes]:
    """A tar's own bytes, whatever packs them, told by its first bytes."""
    with path.open("rb") as file:
        start = file.read(6)
    found = (unpack for magic, unpack in _PACKED.items() if start.startswith(magic))
    unpacked: IO[bytes] = next(found, open)(path, "rb")
    return unpacked


def open_tree(path: Path) -> Tree:
    """The folder or archive at `path`, told by its content; anything else is a UserError."""
    try:
        if path.is_dir():
            return Folder(path)
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.", code=2) from None
    if start == b"PK\x03\x04":
        return Zip(path)
    try:
        tree = Tar(path)
        with tree._opened():
            return tree
    except DAMAGE as error:
        if zipfile.is_zipfile(path):  # an empty one, or one behind a program that unpacks it
            return Zip(path)
        raise UserError(
            f"{path} is neither a folder nor a readable tar (plain, .gz, .bz2, .xz) or zip archive "
            f"({_reason(error)})."
        ) from None


@contextmanager
def damage_named(path: Path, name: str) -> Iterator[None]:
    """Turn what a damaged file raises into one sentence that names it."""
    try:
        yield
    except DAMAGE as error:
        raise _damaged(path, f"at {name!r}", error) from None


def reader(file: IO[bytes], name: str) -> IO[bytes]:
    """`file` itself, or its content where its name says that gzip has packed it."""
    if not name.endswith(".gz"):
        return file
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file))


def _check_link(path: str, above: tuple[str, ...]) -> None:
    """UserError unless a link leads to something within the tree, whose root is `above[0]`."""
    try:
        target = os.path.realpath(path, strict=True)
    except OSError:
        raise UserError(f"{path} is a link to nothing; remove it.") from None
    if target in above:
        raise UserError(f"{path} is a link to a folder above it; remove the link.")
    if not Path(target).is_relative_to(above[0]):
        raise UserError(f"{path} is a link that leaves the folder: copy in what it points to.")


def _member(
    path: Path, raw: str, size: int, packed: int, link: str | None, seen: set[str] | None
) -> str:
    """The name of an archive's member in one form, or a UserError if the guard refuses it.

    `link` is where a link points to, None for other members; `seen` collects the names.
    """
    parts = raw.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or ":" in parts[0]:
        raise UserError(
            f"{path} has a member {raw!r} that would leave its folder; such an archive is not read."
        )
    name = "/".join(part for part in parts if part not in ("", "."))
    if link is not None:
        raise UserError(
            f"{path} has a link as its member {name!r}{f', to {link!r}' if link else ''}; pack the "
            "files themselves (tar --dereference --hard-dereference)."
        )
    if unfolds(size, packed):
        raise UserError(
            f"{path} has a member {name[:200]!r} that unfolds from {packed:,} bytes into {size:,}; "
            "such an archive is not read."
        )
    if seen is not None and not _hidden(name):
        if name in seen:
            raise UserError(f"{path} has two members named {name!r}; keep one.")
        if len(seen) >= FILES_MOST:
            raise UserError(f"{path} has more than {FILES_MOST:,} members, which is not read.")
        seen.add(name)
    return name


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _damaged(path: Path, where: str, error: Exception) -> Exception:
    """The sentence about damage, or `error` itself if it is the disk's.

    Decoders raise OSErrors without a number. zipfile asks for a place before the start of a file
    that has lost its first bytes, which the system finds invalid.
    """
    if isinstance(error, OSError) and not (
        error.errno is None or (error.errno == errno.EINVAL and error.filename is None)
    ):
        return error
    return UserError(f"{path} is damaged or cut off {where} ({_reason(error)}); fetch it again.")


def _reason(error: Exception) -> str:
    text = said(error)
    return text if len(text) <= 120 else f"{text[:120]}..."
