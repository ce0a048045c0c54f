"""A disk that is full, read-only or without write permission, under commands on results."""

import os
import shutil

import pytest

from tests.bench.faults.disks import REAL, forbidden, run_on_real_mounts
from tests.bench.faults.helpers import check_sentence, leftovers
from tests.bench.faults.small import EVALUATE, REPORT, STATS, TUNE, placed
from tests.bench.helpers import bench, contents
from tests.long import mostly_long

COMMANDS = {"tune": TUNE, "report": REPORT, "evaluate": EVALUATE, "stats": STATS}
WORDS = {
    "full": "No space left on device",
    "read-only": "Read-only file system",
    "forbidden": "Permission denied",
}


SHORT = [("tune", "full"), ("report", "read-only"), ("evaluate", "forbidden"), ("stats", "full")]
ALL = [(name, fault) for name in COMMANDS for fault in WORDS]


@pytest.mark.parametrize("case", mostly_long(ALL, SHORT), ids="-".join)
def test_write_error_is_one_sentence_and_loses_nothing(case, disk, sound):
    name, fault = case
    shutil.copytree(sound / "swept", disk.folder, dirs_exist_ok=True)
    command = placed(COMMANDS[name], sound, disk.folder)
    if name == "tune":  # an unfinished search
        assert bench(*[2 if word == "3" else word for word in command]).code == 0
    before = contents(disk.folder)
    del before["default/work.json"]  # what the last command had to do
    faults = {"full": lambda: disk.full(0), "read-only": disk.read_only}
    with faults.get(fault, lambda: forbidden(disk.folder))():
        ran = bench(*command)
    check_sentence(ran, WORDS[fault], str(disk.folder), "Run the same command to continue")
    now = contents(disk.folder)
    assert {path: now.get(path) for path in before} == before
    assert leftovers(disk.folder) == []
    again = bench(*command)
    assert again.code == 0, again.err


def test_report_continues_without_figures_on_a_full_disk(disk, sound, monkeypatch):
    from bench.report import build as report

    shutil.copytree(sound / "swept", disk.folder, dirs_exist_ok=True)
    real = report.write_bytes

    def write(path, content):
        with disk.full(0):
            return real(path, content)

    monkeypatch.setattr(report, "write_bytes", write)
    ran = bench("report", "--results", disk.folder)
    check_sentence(ran, "2 figures failed", "The tables are complete")
    assert "No space left on device" in ran.out
    made = disk.folder / "default" / "report"
    assert {path.name for path in made.iterdir()} >= {"tables.md", "tables.tex", "index.html"}
    assert not list(made.glob("figures/*"))
    assert "No space left on device" in (made / "index.html").read_text()


def test_rows_are_verified_where_nothing_may_be_written(disk, sound):
    shutil.copytree(sound / "swept", disk.folder, dirs_exist_ok=True)
    before = contents(disk.folder)
    for fault in (disk.full(0), disk.read_only(), forbidden(disk.folder)):
        with fault:
            ran = bench("verify", "--results", disk.folder, "--device", "cpu")
        assert ran.code == 0, ran.err
        assert "equal bit for bit" in ran.out
        assert contents(disk.folder) == before


@pytest.mark.long
@pytest.mark.skipif(REAL in os.environ, reason="this is the run on real mounts")
def test_repeated_on_real_mounts(tmp_path):
    run_on_real_mounts(__file__, tmp_path)
