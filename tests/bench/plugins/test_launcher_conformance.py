"""The battery on the launchers that need no cluster, and on broken ones."""

from collections.abc import Iterator

import pytest

from bench.plugins.launcher_conformance import LauncherConformance
from bench.system.launch import Local
from bench.system.launch.local import Child


class TestLocal(LauncherConformance):
    launcher = Local


def test_battery_notices_lost_lines(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Child.lines

    def but_the_last(worker: Child) -> Iterator[str]:
        lines = list(whole(worker))
        yield from lines[:-1]

    monkeypatch.setattr(Child, "lines", but_the_last)
    with pytest.raises(AssertionError):
        TestLocal().test_each_worker_gets_its_number_and_reports_every_line(tmp_path)


def test_battery_notices_a_number_given_twice(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Local.start
    monkeypatch.setattr(Local, "start", lambda self, call, numbers: start(self, call, [1, 1, 2]))
    with pytest.raises(AssertionError):
        TestLocal().test_each_worker_gets_its_number_and_reports_every_line(tmp_path)
