"""A mount that vanishes with its content right before any write of any command."""

import os
import shutil

import pytest

from bench.training.card import WEIGHTS
from tests.bench.faults.disks import REAL, Mounted, as_if_ended, run_on_real_mounts
from tests.bench.faults.helpers import check_sentence, leftovers, results
from tests.bench.faults.inject import before_operation
from tests.bench.faults.small import EVALUATE, REPORT, SAMPLE, STATS, SWEEP, TRAIN, TUNE, placed
from tests.bench.helpers import bench, contents
from tests.long import mostly_long

EVERYWHERE = 10**9
IN_NONE = pytest.mark.skipif(REAL not in os.environ, reason="of a mount point within a folder")
COMMANDS = {
    "sample png": (*SAMPLE, "-m", "igct", "--format", "png", "--results", "S/images", "--out", "D"),
    "sample npz": (*SAMPLE, "-m", "edm", "--results", "S/vectors", "--out", "D/x/o.npz"),
    "sweep": (*SWEEP, "-g", "1,2", "--save-samples", "npz", "--results", "D"),
    "tune": TUNE,
    "report": REPORT,
    "evaluate": EVALUATE,
    "stats": STATS,
    "data": ("data", "prepare", "S/pets", "--data-root", "D"),
}
ON_THE_DISK = {"sweep": "vectors", "tune": "vectors", "report": "swept"}


def emptied(folder):
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def undisturbed(command, sound, begin, folder):
    """The results of the command, and the number of its operations that need disk space."""
    shutil.copytree(begin, folder) if begin else folder.mkdir()
    with before_operation(folder, EVERYWHERE, lambda: None) as counted:
        ran = bench(*placed(command, sound, folder))
    assert ran.code == 0, ran.err
    return results(folder), counted.count


@pytest.mark.parametrize("looks", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", list(COMMANDS))
def test_nothing_is_written_in_the_place_of_a_disk_that_vanished(
    name, looks, disk, sound, tmp_path
):
    begin = sound / ON_THE_DISK[name] if name in ON_THE_DISK else None
    expected, total = undisturbed(COMMANDS[name], sound, begin, tmp_path / "undisturbed")
    command = placed(COMMANDS[name], sound, disk.folder)
    for k in sorted({(total + 1) // 2} if looks == 1 else {1, (total + 1) // 2, total}):
        emptied(disk.folder)
        if begin:
            shutil.copytree(begin, disk.folder, dirs_exist_ok=True)
        before = results(disk.folder)
        with before_operation(disk.folder, k, disk.vanish):
            ran = bench(*command)
        below = contents(disk.folder)
        disk.come_back()
        as_if_ended(disk.folder)
        check_sentence(ran, str(disk.folder), "is gone", "back", "Run the same command to continue")
        assert below == {}, f"operation {k}: something was written into the folder below the mount"
        now = results(disk.folder)
        assert {path: now.get(path) for path in before} == before
        again = bench(*command)
        assert again.code == 0, again.err
        assert sorted(results(disk.folder)) == sorted(expected)
        assert leftovers(disk.folder) == []


def test_report_if_rows_vanish_while_they_are_read(disk, sound, monkeypatch):
    from bench.experiment import rows as store

    shutil.copytree(sound / "swept", disk.folder, dirs_exist_ok=True)
    assert bench("report", "--results", disk.folder).code == 0
    before = contents(disk.folder)
    real = store.read_row
    for moment in ("first", "last"):
        names = sorted((disk.folder / "default" / "cells").glob("*/*.json"))
        at = names[0 if moment == "first" else -1]

        def read(path, at=at):
            found = real(path)
            if path == at:
                disk.vanish()
            return found

        monkeypatch.setattr(store, "read_row", read)
        ran = bench("report", "--results", disk.folder)
        below = contents(disk.folder)
        disk.come_back()
        check_sentence(ran, str(disk.folder), "is gone")
        assert below == {}
        assert contents(disk.folder) == before
        monkeypatch.undo()


def test_rows_that_vanish_before_they_are_listed(disk, sound, monkeypatch):
    from bench.cli import report as report_command
    from bench.system import devices

    shutil.copytree(sound / "swept", disk.folder, dirs_exist_ok=True)
    for module, command in ((report_command, "report"), (devices, "verify")):
        name = "published_file" if command == "report" else "resolve_device"
        real = getattr(module, name)

        def vanish(*given, real=real):
            disk.vanish()
            return real(*given)

        monkeypatch.setattr(module, name, vanish)
        ran = bench(command, "--results", disk.folder)
        disk.come_back()
        check_sentence(ran, str(disk.folder), "is gone")
        monkeypatch.undo()


@pytest.mark.parametrize("moment", mostly_long([1, 5, 9], [5]))
def test_an_experiment_that_is_the_mount_point(moment, disk, sound):
    """The experiment is named like the folder of the disk."""
    shutil.copytree(sound / "vectors" / "default", disk.folder, dirs_exist_ok=True)
    own = ("-g", "1,2", "-e", disk.folder.name, "--results", disk.folder.parent)
    with before_operation(disk.folder, moment, disk.vanish):
        ran = bench(*SWEEP, *own)
    below = contents(disk.folder)
    disk.come_back()
    as_if_ended(disk.folder)
    check_sentence(ran, str(disk.folder), "is gone")
    assert below == {}
    assert bench(*SWEEP, *own).code == 0
    assert len(list((disk.folder / "cells").glob("*/*.json"))) == 3
    assert leftovers(disk.folder) == []


@IN_NONE
@pytest.mark.parametrize("moment", [1, 2, 4, 9, 20])
def test_run_folder_is_the_mount_point(moment, sound, tmp_path):
    runs = tmp_path / "results" / "default" / "runs"
    runs.mkdir(parents=True)
    disk = Mounted(runs)
    own = ("--name", disk.folder.name, "--results", tmp_path / "results")
    with before_operation(disk.folder, moment, disk.vanish):
        ran = bench(*TRAIN, *own)
    below = contents(disk.folder)
    disk.come_back()
    as_if_ended(disk.folder)
    check_sentence(ran, str(disk.folder), "is gone")
    assert below == {}
    assert not (disk.folder / WEIGHTS).exists()
    assert bench(*TRAIN, *own).code == 0
    whole = sound / "vectors" / "default" / "runs" / "modes1d-edm-s0" / WEIGHTS
    assert (disk.folder / WEIGHTS).read_bytes() == whole.read_bytes()
    assert leftovers(disk.folder) == []
    disk.close()


@pytest.mark.long
@pytest.mark.skipif(REAL in os.environ, reason="this is the run on real mounts")
def test_repeated_on_real_mounts(tmp_path):
    run_on_real_mounts(__file__, tmp_path)
