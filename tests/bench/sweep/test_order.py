"""The order in which processes try items, and the time left that their bar shows."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench.sweep import execute as module
from bench.sweep.work import WorkItem, dealt
from bench.system import progress
from bench.system.progress import Bar
from bench.system.workers import End


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
    # Of 90 units, 80 of them for evaluations; 10 units each in nine others, one of which is kept.
    items = [_item("long", "", 80.0), *(_item(f"{k}", "", 0.0) for k in range(9))]
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    count = module._Counted(items, Bar("", 100, 0, Console(file=io.StringIO())))
    count.end(items[1], End("kept"))
    for done in range(1, 11):  # 8 units in a second
        now += 1.0
        count(Path("long"), done, "")
        if done > 1:
            assert shown[-1] == pytest.approx((170 - 8 * done) / 8)
    for left, item in enumerate((*reversed(items[2:]), items[0])):
        now += 10 / 8
        count.end(item, End("computed"))
        count(Path("long"), 10, "")  # a late report changes nothing
        assert shown[-1] == pytest.approx((80 - 10 * left) / 8, abs=1e-9)


@dataclass(frozen=True, kw_only=True)
class Costly(Item):
    sampling: float
    measuring: float

    def seconds_of_work(self) -> float:
        return self.sampling


def _cells(evaluation: Callable[[str], float], feature: float, metrics: float) -> list[Costly]:
    """The cells of a study: 13 scales of three methods, in the order of a sweep."""
    steps = {"edm": (18, 35), "igct": (1, 1), "ct": (2, 2)}
    return [
        Costly(
            what=f"{run}{g}", path=Path(f"{run}{g}"), images=300, group=run,
            work=300.0 * nfe[g > 1], sampling=300 * nfe[g > 1] * evaluation(run),
            measuring=300 * feature + metrics + 0.3 * (run == "edm" and g == 1),
        )
        for run, nfe in steps.items() for g in range(1, 14)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cells",
    [
        _cells(lambda _: 2e-4, 2e-4, 0.02),  # sampling costs most, as for images
        _cells(lambda _: 2e-5, 0.0, 0.8),  # metrics cost most, as for modes1d
        _cells(lambda run: 2e-4 if run == "edm" else 4e-4, 1e-4, 0.3),
    ],
    ids=["sampling", "metrics", "mixed"],
)
def test_time_left_is_within_a_quarter_after_a_tenth(
    cells: list[Costly], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    shown: list[tuple[float, float]] = []
    monkeypatch.setattr(progress, "duration", lambda left: shown.append((now, left)) or "")
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    total = sum(cell.images for cell in cells)
    count = module._Counted(cells, Bar("", total, 0, Console(file=io.StringIO())))
    for cell in cells:
        for done in (100, 200, 300):
            now += cell.sampling / 3
            count(cell.path, done, cell.what)
        now += cell.measuring
        count.end(cell, End("computed", seconds=cell.sampling + cell.measuring))
    later = [(left, now - at) for at, left in shown if now / 10 <= at < now]
    assert len(later) > 30
    for left, true in later[: len(later) // 2]:
        assert left == pytest.approx(true, rel=0.25)
