"""Runs inside the process to be killed: counts file operations and tracks what is on disk.

Each operation has an event before it and one after it; the process can send itself a signal at
the k-th event. Whatever would survive a power cut is kept in a shadow next to the tree: the content
of each file, and the names in each folder, at the last synchronisation.
"""

import builtins
import io
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

REAL = {name: getattr(os, name) for name in
        ("fsync", "replace", "rename", "link", "unlink", "remove", "mkdir", "rmdir",
         "open")}  # fmt: skip
_open = io.open


class Shadow:
    """Data certainly on disk: `files/<inode>`, and `folders/<inode>.json` from name to inode.

    `grave` keeps removed files, so that no inode number is reused while recording.
    """

    def __init__(self, folder: Path) -> None:
        self.files, self.folders, self.grave = (
            folder / name for name in ("files", "folders", "grave")
        )

    def start(self, tree: Path) -> None:
        """Treat everything below `tree` as on disk."""
        shutil.rmtree(self.files.parent, ignore_errors=True)
        for folder in (self.files, self.folders, self.grave):
            folder.mkdir(parents=True)
        for path in (tree, *tree.rglob("*")):
            self.synced(path)

    def synced(self, path: Path) -> None:
        """Record a file's content or a folder's names, atomically."""
        inode = path.stat().st_ino
        if path.is_dir():
            names = {name: (path / name).lstat().st_ino for name in os.listdir(path)}
            about = json.dumps({"path": str(path), "names": names})
            target, content = self.folders / f"{inode}.json", about.encode()
        else:
            target, content = self.files / str(inode), path.read_bytes()
        temporary = target.with_name(f"{target.name}~")
        temporary.write_bytes(content)
        REAL["replace"](temporary, target)

    def bury(self, path: str) -> None:
        """Keep the inode of a file whose name is about to be removed or replaced."""
        with suppress(FileNotFoundError):
            if not os.path.isdir(path):
                with suppress(FileExistsError):
                    REAL["link"](path, self.grave / str(os.stat(path).st_ino))


class Shim:
    """Replaces the functions of `os` and `open` in this process."""

    def __init__(self, tree: Path, shadow: Shadow | None, log: Path | None,
                 at: int, number: int) -> None:  # fmt: skip
        self.tree, self.shadow, self.at, self.number = str(tree), shadow, at, number
        self.log = None if log is None else os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.count = 0

    def install(self) -> None:
        """Install the shim until the process ends."""
        os.fsync = self.fsync
        os.replace, os.rename = self._moving("replace"), self._moving("rename")
        os.unlink, os.remove, os.rmdir = (self._removing(n) for n in ("unlink", "remove", "rmdir"))
        os.mkdir, os.link, os.open = self.mkdir, self.link, self.open_descriptor
        io.open = builtins.open = self.open

    def event(self, what: str, path: object) -> None:
        """Count one event below the tree; kill the process if it is the chosen one."""
        name = os.path.abspath(os.fsdecode(path))
        if not self.inside(name):
            return
        self.count += 1
        if self.log is not None:
            os.write(self.log, f"{what} {name[len(self.tree) :]}\n".encode())
        if self.count == self.at:
            os.kill(os.getpid(), self.number)

    def inside(self, name: str) -> bool:
        """Whether a path is the tree or below it."""
        return name == self.tree or name.startswith(f"{self.tree}/")

    def fsync(self, descriptor: int) -> None:
        where = os.readlink(f"/proc/self/fd/{descriptor}")
        self.event("fsync", where)
        REAL["fsync"](descriptor)
        if self.shadow is not None and self.inside(where) and os.path.exists(where):
            self.shadow.synced(Path(where))
        self.event("fsync done", where)

    def mkdir(self, path, mode=0o777, *, dir_fd=None):
        self.event("mkdir", path)
        REAL["mkdir"](path, mode, dir_fd=dir_fd)
        self.event("mkdir done", path)

    def link(self, source, target, **folders):
        self.event("link", target)
        REAL["link"](source, target, **folders)
        self.event("link done", target)

    def open_descriptor(self, path, flags, mode=0o777, *, dir_fd=None):
        opened = REAL["open"](path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_CREAT and dir_fd is None:
            self.event("open", path)
        return opened

    def open(self, file, mode="r", *args, **kwargs):
        opened = _open(file, mode, *args, **kwargs)
        if isinstance(file, (str, os.PathLike)) and set(mode) & set("wax+"):
            self.event("open", file)  # truncated, and nothing written yet
        return opened

    def _moving(self, name: str):
        def move(source, target, **folders):
            target = os.path.abspath(target)
            self.event(name, target)
            if self.shadow is not None:
                self.shadow.bury(os.fspath(target))
            REAL[name](source, target, **folders)
            self.event(f"{name} done", target)

        return move

    def _removing(self, name: str):
        def remove(path, *, dir_fd=None):
            whole = os.path.abspath(path)
            if dir_fd is not None:
                whole = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fspath(path))
            self.event(name, whole)
            if self.shadow is not None and self.inside(whole) and name == "rmdir":
                # Folders have no hard links: move an empty one to the grave to keep its inode.
                if os.path.isdir(whole) and not os.listdir(whole):
                    REAL["rename"](whole, self.shadow.grave / f"d{os.stat(whole).st_ino}")
                    return
            elif self.shadow is not None and self.inside(whole):
                self.shadow.bury(whole)
            REAL[name](path, dir_fd=dir_fd)
            self.event(f"{name} done", whole)

        return remove
