"""Full, read-only and vanished disks: with injected faults, then again on real mounts."""

import os
import shutil
from pathlib import Path

import pytest

from bench.training.card import WEIGHTS
from tests.bench.faults.disks import (
    REAL,
    as_if_ended,
    at_synchronisation,
    run_on_real_mounts,
)
from tests.bench.faults.helpers import check_sentence, leftovers, results
from tests.bench.faults.small import SWEEP, TRAIN
from tests.bench.helpers import bench, contents
from tests.long import mostly_long

ONE, MORE = (*SWEEP, "-g", "1"), (*SWEEP, "-g", "1,2,3,4")
RUN = Path("default") / "runs" / "modes1d-edm-s0"


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Results folders after training, after the first cell and after all cells, on a sound disk."""
    folder = tmp_path_factory.mktemp("undisturbed") / "results"
    found = {}
    for name, command in (("trained", TRAIN), ("begun", ONE), ("swept", MORE)):
        assert bench(*command, "--results", folder).code == 0
        found[name] = shutil.copytree(folder, folder.with_name(name))
    return found


def refused(ran, disk, *words):
    check_sentence(ran, str(disk.folder), *words)
    assert ran.code == 1


def kept(before, folder):
    """Whether all earlier content is still there, unchanged."""
    now = results(folder)
    return {name: now.get(name) for name in before} == before


def test_training_on_a_full_disk(disk, stages):
    refusals = 0
    for room in (0, 3, 6):
        place = disk.folder / f"results{room}"
        with disk.full(room):
            ran = bench(*TRAIN, "--results", place)
        if ran.code:
            refusals += 1
            refused(
                ran,
                disk,
                "No space left on device",
                "Free some disk space there",
                "Run the same command",
            )
            assert not (place / RUN / WEIGHTS).exists()
        assert not place.exists() or leftovers(place) == []
        assert bench(*TRAIN, "--results", place).code == 0
        assert results(place) == results(stages["trained"])
        assert leftovers(place) == []
    assert refusals >= 2


def test_sweep_on_a_full_disk(disk, stages):
    place = disk.folder / "results"
    shutil.copytree(stages["begun"], place)
    before = results(place)
    for room in (0, 3):
        with disk.full(room):
            ran = bench(*MORE, "--results", place)
        refused(
            ran,
            disk,
            "No space left on device",
            "Free some disk space there",
            "Run the same command to continue",
        )
        assert kept(before, place)
        assert leftovers(place) == []
    again = bench(*MORE, "--results", place)
    assert again.code == 0
    assert results(place) == results(stages["swept"])


def test_disk_becomes_read_only(disk, stages):
    place = disk.folder / "results"
    shutil.copytree(stages["begun"], place)
    before = results(place)
    for command in (MORE, ("report",), (*TRAIN, "--seed", "1")):
        with disk.read_only():
            ran = bench(*command, "--results", place)
        refused(ran, disk, "Read-only file system", "Get write permission there")
        assert results(place) == before
    for command in (TRAIN, ONE):  # their results are complete
        with disk.read_only():
            ran = bench(*command, "--results", place)
        assert ran.code == 0, ran.err
    assert bench(*MORE, "--results", place).code == 0
    assert results(place) == results(stages["swept"])


@pytest.mark.parametrize("moment", mostly_long([5, 7, 11], [11]))
def test_mount_vanishes_during_training(disk, stages, moment):
    place = disk.folder / "results"
    with at_synchronisation(moment, disk.vanish):  # writes of the card, the log and a checkpoint
        ran = bench(*TRAIN, "--results", place)
    below = contents(disk.folder)
    disk.come_back()
    as_if_ended(disk.folder)
    refused(ran, disk, "back", "Run the same command to continue")
    assert below == {}, "something was written into the folder below the mount"
    assert bench(*TRAIN, "--results", place).code == 0
    assert results(place) == results(stages["trained"])
    assert leftovers(place) == []


@pytest.mark.parametrize("moment", mostly_long([1, 5], [5]))
def test_mount_vanishes_during_a_sweep(disk, stages, moment):
    place = disk.folder / "results"
    shutil.copytree(stages["begun"], place)
    before = results(place)
    with at_synchronisation(moment, disk.vanish):
        ran = bench(*MORE, "--results", place)
    below = contents(disk.folder)
    disk.come_back()
    as_if_ended(disk.folder)
    refused(ran, disk, "back", "Run the same command to continue")
    assert below == {}, "something was written into the folder below the mount"
    assert kept(before, place)
    assert bench(*MORE, "--results", place).code == 0
    assert results(place) == results(stages["swept"])
    assert leftovers(place) == []


@pytest.mark.long
@pytest.mark.skipif(REAL in os.environ, reason="this is the run on real mounts")
def test_repeated_on_real_mounts(tmp_path):
    run_on_real_mounts(__file__, tmp_path)
