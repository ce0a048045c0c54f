import errno
from pathlib import Path

import pytest

from bench.system import places
from bench.system.files import atomic_file, make_folder

OPEN = Path("/proc/self/fd")


def replaced(folder: Path) -> None:
    """As a mount that vanishes: another folder, empty, in its place."""
    folder.rename(folder.with_name("aside"))
    folder.mkdir()


@pytest.mark.parametrize("named", ["disk", "disk/new/file.json", "disk/there.txt"])
def test_replaced_folder_is_an_error(tmp_path: Path, named: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "there.txt").touch()

    def work() -> None:
        with places.holding(tmp_path / named):
            places.check()
            replaced(disk)
            with pytest.raises(OSError, match="It is gone"):
                make_folder(disk / "a" / "b")
            with pytest.raises(OSError, match="It is gone"), atomic_file(disk / "c"):
                pass

    with pytest.raises(OSError, match="It is gone") as caught:
        work()
    assert caught.value.errno == errno.ENODEV
    assert caught.value.filename == str(disk)
    assert list(disk.iterdir()) == []
    places.check()  # nothing is held any more


def test_missing_folder_is_reported_as_the_cause(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()

    def work() -> None:
        with places.holding(disk):
            disk.rmdir()
            raise KeyError("there are no rows")

    with pytest.raises(OSError, match="It is gone") as caught:
        work()
    assert isinstance(caught.value.__context__, KeyError)


def test_content_of_a_folder_may_change(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("old")
    with places.holding(file, tmp_path / "new" / "x"):
        for content in (b"1", b"2"):
            with atomic_file(file) as written:
                written.write(content)
        make_folder(tmp_path / "new")
        (tmp_path / "new").rmdir()
    assert file.read_bytes() == b"2"


def test_invalid_paths_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with places.holding(tmp_path / "loop" / "x", tmp_path / "a\0b", tmp_path / ("n" * 300)):
        pass


@pytest.mark.skipif(not OPEN.is_dir(), reason="the system does not list what is open")
def test_all_descriptors_are_closed(tmp_path: Path) -> None:
    before = len(list(OPEN.iterdir()))
    with places.holding(tmp_path, tmp_path / "x"):
        places.hold(tmp_path)
    assert len(list(OPEN.iterdir())) == before


def test_mount_points_below_are_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, disk = tmp_path / "mountinfo", tmp_path / "results" / "my disk"
    disk.mkdir(parents=True)
    name = str(disk).replace(" ", "\\040")
    table.write_text(f"22 1 8:1 / / rw - ext4 /dev/a rw\n33 22 8:2 / {name} rw - ext4 /dev/b rw\n")
    monkeypatch.setattr(places, "_MOUNTS", table)

    def work() -> None:
        with places.holding(tmp_path / "results"):
            places.check()
            replaced(disk)

    with pytest.raises(OSError, match="It is gone") as caught:
        work()
    assert caught.value.filename == str(disk)


@pytest.mark.skipif(not OPEN.is_dir(), reason="the system does not list what is open")
def test_nested_block_releases_only_its_own_folders(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    outer.mkdir()
    inner.mkdir()
    with places.holding(outer):
        before = len(list(OPEN.iterdir()))
        with places.holding():
            places.hold(inner, outer)
        inner.rmdir()
        places.check()
        assert len(list(OPEN.iterdir())) == before
        replaced(outer)
        with pytest.raises(OSError, match="It is gone"), places.holding():
            pass
        (tmp_path / "outer").rmdir()
        (tmp_path / "aside").rename(outer)
