"""The model of a power cut keeps what it must keep, and loses what it may lose."""

import os
import random
import sys
from pathlib import Path

import pytest

from tests.torture.disk import cut
from tests.torture.shim import Shadow, Shim

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="looks files up in /proc"
)


def _in_a_child(tree: Path, shadow: Shadow, work) -> None:
    """Run `work` under the shim in a child, since the shim cannot be uninstalled."""
    child = os.fork()
    if child == 0:
        try:
            Shim(tree, shadow, None, 0, 0).install()
            work()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.parametrize("seed", range(12))
def test_power_cut_keeps_synced_files_and_may_lose_others(tmp_path, seed):
    tree, shadow = tmp_path / "tree", Shadow(tmp_path / "shadow")
    tree.mkdir()
    (tree / "old").write_text("old")
    shadow.start(tree)

    def work():
        with open(tree / "kept", "w") as file:
            file.write("synchronised")
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(tree, os.O_RDONLY)
        os.fsync(folder)
        with open(tree / "kept", "a") as file:
            file.write(" and more")
        (tree / "new").write_text("new")
        os.replace(tree / "new", tree / "old")

    _in_a_child(tree, shadow, work)
    assert (tree / "kept").read_text() == "synchronised and more"
    assert cut(tree, shadow, random.Random(seed)) == []
    kept = (tree / "kept").read_bytes()
    assert kept.startswith(b"synchronised")
    assert kept.rstrip(b"\0") == b"synchronised and more"[: len(kept.rstrip(b"\0"))]
    old = (tree / "old").read_bytes()
    assert old == b"old" or old.rstrip(b"\0") == b"new"[: len(old.rstrip(b"\0"))]


def test_power_cut_finds_an_unsynced_folder(tmp_path):
    def work():
        with open("file", "w") as file:
            file.write("content")
            file.flush()
            os.fsync(file.fileno())
        os.fsync(os.open(".", os.O_RDONLY))

    found = []
    for seed in range(8):
        tree, shadow = tmp_path / f"tree{seed}", Shadow(tmp_path / "shadow")
        tree.mkdir()
        shadow.start(tree)

        def in_folder(tree=tree):
            (tree / "folder").mkdir()
            os.chdir(tree / "folder")
            work()

        _in_a_child(tree, shadow, in_folder)
        found.append(cut(tree, shadow, random.Random(seed)))
        assert (tree / "folder" / "file").exists() == (not found[-1])
    assert ["folder/file"] in found
    assert [] in found
