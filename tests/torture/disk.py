"""A tree as it may be on disk after a power cut, rebuilt from the shadow kept by the shim.

Synchronised names and contents are there. Any subset of the later changes may be there: each name
of a folder independently, and any part of a file's bytes, or zeros in their place.
"""

import json
import os
import random
import shutil
from pathlib import Path

from tests.torture.shim import Shadow


def cut(tree: Path, shadow: Shadow, rng: random.Random) -> list[str]:
    """Apply a power cut to `tree`; return the files that were safely on disk and are gone."""
    after = tree.with_name(f"{tree.name}.after")
    shutil.rmtree(after, ignore_errors=True)
    disk = _Disk(tree, shadow, rng)
    certain = disk.certain(tree)
    disk.rebuild(tree.stat().st_ino, after)
    lost = sorted(name for name in certain if not (after / name).is_file())
    shutil.rmtree(tree)
    after.rename(tree)
    return lost


class _Disk:
    def __init__(self, tree: Path, shadow: Shadow, rng: random.Random) -> None:
        self.tree, self.shadow, self.rng = tree, shadow, rng
        # Probability that a later change of a name is on the disk.
        self.newer = rng.choice((0.0, 0.5, 1.0))
        self.paths = {p.stat().st_ino: p for p in (tree, *tree.rglob("*"))}
        for path in shadow.grave.iterdir():
            self.paths.setdefault(path.stat().st_ino, path)
        self.seen: set[int] = set()

    def names(self, inode: int, path: Path | None = None) -> dict[str, int]:
        """The synchronised names of a folder; with a path, only if the folder was there then."""
        file = self.shadow.folders / f"{inode}.json"
        about = json.loads(file.read_text()) if file.exists() else {"path": "", "names": {}}
        return about["names"] if path is None or about["path"] == str(path) else {}

    def certain(self, folder: Path) -> list[str]:
        """Visible files whose content and present name are certainly on disk."""
        found = []
        for path in (p for p in folder.rglob("*") if p.is_file()):
            hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
            inode = path.stat().st_ino
            listed = self.names(path.parent.stat().st_ino, path.parent).get(path.name) == inode
            if not hidden and listed and (self.shadow.files / str(inode)).exists():
                found.append(str(path.relative_to(folder)))
        return found

    def rebuild(self, inode: int, target: Path) -> None:
        """Write the folder with this inode as `target`."""
        target.mkdir()
        self.seen.add(inode)
        path = self.paths.get(inode)
        now = {} if path is None else {n: (path / n).lstat().st_ino for n in os.listdir(path)}
        then = self.names(inode)
        for name in sorted(then.keys() | now.keys()):
            old, new = then.get(name), now.get(name)
            chosen = new if old == new or self.rng.random() < self.newer else old
            if chosen is None:
                continue
            source = self.paths.get(chosen)
            if source is not None and source.is_dir():
                if chosen not in self.seen:  # a renamed folder has only one of its names
                    self.rebuild(chosen, target / name)
            else:
                (target / name).write_bytes(self.content(chosen, source))

    def content(self, inode: int, source: Path | None) -> bytes:
        """A file's bytes: the synchronised ones, or any that may be there of later writes."""
        file = self.shadow.files / str(inode)
        old = file.read_bytes() if file.exists() else None
        new = b"" if source is None else source.read_bytes()
        if old == new:
            return new
        least = len(old) if old is not None and new.startswith(old) else 0
        part = new[: self.rng.randint(least, len(new))]
        may = [new, part, part + bytes(len(new) - len(part))]
        return self.rng.choice(may if old is None else [*may, old])
