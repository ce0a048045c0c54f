"""The order in which processes try items, and the time left that their bar shows."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.sweep import execute as module
from bench.sweep.work import WorkItem, dealt
from bench.system import progress
from bench.system.progress import Bar


@dataclass(frozen=True, kw_only=True)
class Item(WorkItem):
    def is_done(self, batch: int) -> bool:
        return False

    def compute(self, batch: int, tick: Any) -> bool:
        return True

    def store(self, status: Any, reason: str) -> None:
        pass


def _item(name: str, group: str, work: float, images: int = 10) -> Item:
    return Item(what=name, path=Path(name), images=images, group=group, work=work)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_processes_begin_with_other_groups(count: int) -> None:
    work = {"a": 1, "b": 5, "c": 2, "d": 4}
    items = [_item(f"{g}{k}", g, work[g]) for g in work for k in range(3)]
    assert dealt(items, 0, 1) == items
    orders = [[item.what for item in dealt(items, k, count)] for k in range(count)]
    for order in orders:
        assert sorted(order) == sorted(item.what for item in items)
        groups = [name[0] for name in order]
        assert groups[::3] == list(dict.fromkeys(groups))  # each group as a whole
        assert all(order[k : k + 3] == sorted(order[k : k + 3]) for k in (0, 3, 6, 9))
    # Largest first: b, d, c, a, each begun by another process as long as there are enough.
    assert [order[0] for order in orders] == ["b0", "d0", "c0", "a0", "b0"][:count]
    if count == 2:  # two whole groups for each: b and c, d and a
        assert [[order[0], order[3]] for order in orders] == [["b0", "c0"], ["d0", "a0"]]


def test_time_left_follows_the_work_and_not_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown: list[float] = []
    monkeypatch.setattr(progress, "duration", lambda seconds: shown.append(seconds) or "")
    # 9 units in an item of many evaluations, one unit each in nine others, one of which is kept.
    items = [_item("long", "", 9.0), *(_item(f"{k}", "", 1.0) for k in range(9))]
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    count = module._Counted(items, Bar("", 100, 0, Console(file=io.StringIO())))
    count.leave_out(Path("0"))
    count(Path("0"), 10, "")
    for done in range(1, 11):  # 0.9 units in a second
        now += 1.0
        count(Path("long"), done, "")
        if done > 1:
            assert shown[-1] == pytest.approx((17 - 0.9 * done) / 0.9)
    for k in range(1, 9):
        now += 1 / 0.9
        count(Path(f"{k}"), 10, "")
    assert shown[-1] == pytest.approx(0.0, abs=1e-9)
