"""Folders, tar and zip archives behind one interface: files by name, read as a stream.

Nothing is extracted to disk. All readers apply the same checks. In a folder, links to anywhere are
followed, but not loops. In an archive, links are refused, and so are names that lead outside, names
that occur twice and decompression bombs. Hidden files and those of the system are skipped.
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
"""Bytes of a file that is read whole, such as an image."""
HEADER_MOST = 1 << 20
"""Bytes of a tar header: long names and attributes, which tarfile reads whole."""
SYSTEM = frozenset(
    {
        "@eaDir", "__pycache__", "#recycle", "@Recycle", "lost+found", "$RECYCLE.BIN",
        "System Volume Information", "Thumbs.db", "ehthumbs.db", "desktop.ini",
    }
)  # fmt: skip
"""Files and folders of operating systems and storage devices; skipped like hidden ones."""
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
        """All files except hidden ones, sorted by name; UserError if one is refused."""

    @abstractmethod
    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """Open the named files one by one, in the order of `order`."""

    def order(self, names: Collection[str]) -> list[str]:
        """The order in which `read` yields these files: as given, except in a tar."""
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
        """The bytes of the named files, in the order of `read`; UserError above `most` bytes."""
        for name, file in self.read(names):
            with damage_named(self.path, name):
                content = file.read(most + 1)
            if len(content) > most:
                raise UserError(
                    f"{self.path} has the file {name!r} of more than {most:,} bytes; not read."
                )
            yield name, content


class Folder(Tree):
    """A folder on disk; links to files and folders anywhere are followed."""

    def files(self) -> list[File]:
        """All files below."""
        return sorted(self._walk(str(self.path), "", ()), key=lambda f: f.name)

    def _walk(self, folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[File]:
        real = os.path.realpath(folder)
        if any(Path(other).is_relative_to(real) for other in above):
            raise UserError(f"{folder} is a link to a folder that contains it; remove the link.")
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if _hidden(entry.name):
                    continue
                if entry.is_symlink() and not Path(entry.path).exists():
                    raise UserError(f"{entry.path} is a link to nothing; remove it.")
                if entry.is_dir():
                    yield from self._walk(entry.path, f"{name}/", (*above, real))
                elif entry.is_file():
                    yield File(name, entry.stat().st_size)
                else:
                    raise UserError(f"{entry.path} is neither a file nor a folder; remove it.")

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """Open the files in the given order."""
        for name in names:
            check_regular(self.path / name)
            with (self.path / name).open("rb") as file:
                yield name, file


class Tar(Tree):
    """A tar archive, plain or compressed by gzip, bzip2 or xz, read from front to end.

    A plain tar in it counts as a folder, as in ILSVRC's archive of training images.
    """

    def files(self) -> list[File]:
        """All regular files; UserError for links, devices and duplicate names."""
        found = (File(name, info.size) for name, info, _ in self._members(set()))
        return sorted(found, key=lambda f: f.name)

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """Open the files in the archive's order."""
        wanted = set(names)
        left = len(wanted)
        for name, info, archive in self._members():
            if name in wanted:
                yield name, cast("IO[bytes]", archive.extractfile(info))
                left -= 1
            if left == 0:
                return

    def order(self, names: Collection[str]) -> list[str]:
        """The archive's order."""
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
                        raise UserError(
                            f"{self.path} has a member {name!r} that is not a plain file."
                        )
                    if _hidden(name):
                        continue
                    if name.endswith(".tar"):
                        yield from self._inner(name, info, archive, packed, seen)
                    else:
                        yield name, info, archive
                # A complete archive ends with a block of zeros after its last member.
                if cast("IO[bytes]", archive.fileobj).tell() <= archive.offset:
                    raise EOFError("it has no end")
        except DAMAGE as error:
            raise _damaged(self.path, f"after {last}", error) from None

    def _inner(
        self,
        outer: str,
        info: tarfile.TarInfo,
        archive: tarfile.TarFile,
        packed: int,
        seen: set[str] | None,
    ) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
        """The files of a tar in the tar, in a folder with its name."""
        bounded = _Bounded(cast("IO[bytes]", archive.extractfile(info)))
        with (
            damage_named(self.path, outer),
            tarfile.open(fileobj=cast("IO[bytes]", bounded), mode="r:") as inner,
        ):
            bounded.most = None
            while (member := bounded.header(inner)) is not None:
                inner.members.clear()  # type: ignore[attr-defined]
                if member.isdir():
                    continue
                link = member.linkname if member.issym() or member.islnk() else None
                raw = f"{outer.removesuffix('.tar')}/{member.name}"
                name = _member(self.path, raw, member.size, packed, link, seen)
                if not member.isfile() or member.issparse():
                    raise UserError(f"{self.path} has a member {name!r} that is not a plain file.")
                if not _hidden(name):
                    yield name, member, inner


class Zip(Tree):
    """A zip archive."""

    def files(self) -> list[File]:
        """All files; UserError for links, duplicate names and encrypted files."""
        with self._opened() as (_, entries):
            return [File(name, info.file_size) for name, info in sorted(entries.items())]

    def read(self, names: Collection[str]) -> Iterator[tuple[str, IO[bytes]]]:
        """Open the files in the given order."""
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
                        f"{self.path} is encrypted ({name!r}): pack it again without a password."
                    )
                if not _hidden(name):
                    entries[name] = info
            yield archive, entries


class _Bounded:
    """A tar's bytes; each read is limited to `most` bytes.

    tarfile trusts the length in a header, and a small archive can claim any length.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.most: int | None = HEADER_MOST
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """`size` bytes; tarfile's own error above the limit."""
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
    """The uncompressed bytes of a tar; its first bytes say how it is compressed."""
    with path.open("rb") as file:
        start = file.read(6)
    found = (unpack for magic, unpack in _PACKED.items() if start.startswith(magic))
    return cast("IO[bytes]", next(found, open)(path, "rb"))


def open_tree(path: Path) -> Tree:
    """The folder or archive at `path`, recognised by its content; UserError for anything else."""
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
        if zipfile.is_zipfile(path):  # empty, or self-extracting
            return Zip(path)
        raise UserError(
            f"{path} is neither a folder nor a readable tar (plain, .gz, .bz2, .xz) or zip archive "
            f"({_reason(error)})."
        ) from None


@contextmanager
def damage_named(path: Path, name: str) -> Iterator[None]:
    """Turn the exceptions of a damaged file into a UserError that names it."""
    try:
        yield
    except DAMAGE as error:
        raise _damaged(path, f"at {name!r}", error) from None


def reader(file: IO[bytes], name: str) -> IO[bytes]:
    """`file`, decompressed if its name ends in .gz."""
    if not name.endswith(".gz"):
        return file
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file))


def _member(
    path: Path, raw: str, size: int, packed: int, link: str | None, seen: set[str] | None
) -> str:
    """The normalised name of an archive's member; UserError if the member is refused.

    `link` is the target of a link and None for other members; `seen` collects the names.
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
            raise UserError(f"{path} has more than {FILES_MOST:,} members, and is not read.")
        seen.add(name)
    return name


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) or part in SYSTEM for part in name.split("/"))


def _damaged(path: Path, where: str, error: Exception) -> Exception:
    """A UserError about damage, or `error` itself if the disk raised it.

    Decoders raise OSErrors without errno. If a zip has lost its first bytes, zipfile seeks to a
    negative offset, which raises EINVAL without a file name.
    """
    if isinstance(error, OSError) and not (
        error.errno is None or (error.errno == errno.EINVAL and error.filename is None)
    ):
        return error
    return UserError(f"{path} is damaged or cut off {where} ({_reason(error)}); fetch it again.")


def _reason(error: Exception) -> str:
    text = said(error)
    return text if len(text) <= 120 else f"{text[:120]}..."
