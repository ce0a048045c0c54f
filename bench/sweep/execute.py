"""The loop over work items: shared with other processes, safe to interrupt and to repeat."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from threading import Lock
from typing import Literal

from bench.experiment.place import Experiment
from bench.sweep.generate import Diverged
from bench.sweep.work import WorkItem, dealt
from bench.system import places
from bench.system.apart import Offer
from bench.system.errors import UserError, counted, told
from bench.system.failures import system_error
from bench.system.files import make_folder, tidy
from bench.system.leases import tidy_leases
from bench.system.memory import Batches
from bench.system.progress import Bar, Reporter, Say
from bench.system.record import record
from bench.system.sharing import in_turn
from bench.system.workers import Crew, End, Progressed, current_crew, written_by_command


@dataclass
class Outcome:
    """Counts of work items; `failed` holds one sentence per failed item."""

    computed: int = 0
    kept: int = 0
    skipped: int = 0
    diverged: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, what: str, end: End) -> None:
        """Count one item."""
        if end.how == "failed":
            self.failed.append(f"{what}: {end.reason}")
        elif end.how == "kept":
            self.kept += 1
        else:
            self.computed += 1
            self.diverged += end.how == "diverged"

    def summary(self, noun: str, of: str = "") -> str:
        """The counts in a sentence about the noun, such as "cell", followed by `of`."""
        diverged = f" ({self.diverged} diverged)" if self.diverged else ""
        return (
            f"{counted(self.computed, noun)}{of} computed{diverged}, {self.kept} kept, "
            f"{self.skipped} skipped with a reason, {len(self.failed)} failed."
        )


def execute_all(
    items: Sequence[WorkItem], experiment: Experiment, title: str, batch: int, reporter: Reporter
) -> Outcome:
    """`execute` under a progress bar of its own."""
    total = sum(item.images for item in items if not item.skip)
    with reporter.bar(title, total, shared=True) as bar:
        return execute(items, experiment, bar, Batches(batch, reporter.note), reporter.say)


def execute(
    items: Sequence[WorkItem], experiment: Experiment, bar: Bar, batches: Batches, say: Say
) -> Outcome:
    """Compute the missing items; processes that do the same in this folder share them.

    A failure is stored with its reason, never replaces a result and is tried again next time; the
    other items continue. A UserError or a failure of the machine stops all. A batch that does not
    fit into memory is halved, which changes no sample by more than rounding.
    """
    make_folder(experiment.root)
    places.hold(experiment.root)
    for folder in dict.fromkeys(item.path.parent for item in items):
        tidy(folder)
        tidy_leases(folder)
    outcome = Outcome()
    for item in items:
        if item.skip:
            outcome.skipped += 1
            item.store("skip", item.skip)
    todo = [item for item in items if not item.skip]
    record(bar.title, [(item.path, item.what) for item in todo])
    crew, done_here = current_crew(), set[Path]()
    mine = dealt(todo, *crew.share)

    def is_ready(item: WorkItem) -> bool:
        ready = all(path in done_here or path.exists() for path in item.after)
        return crew.computes() and ready

    def is_done(item: WorkItem) -> bool:
        if crew.found(item.path) is not None or item.is_done(batches.size):
            return True
        # Another process has stored a failure: the next command tries again.
        return written_by_command(item.path)

    def waiting(item: WorkItem, holder: str) -> None:
        if not crew.includes(holder):
            say(f"{item.what}: waiting for {holder}.")

    offers = {
        item.lease: Offer(
            item.path, partial(is_done, item), partial(item.is_stored, batches.size),
            partial(item.store, "failed"), item.after,
        )
        for item in todo
    }  # fmt: skip
    count = _Counted(todo, bar)
    with crew.watched(count, offers):
        for item, done in in_turn(
            mine, lambda item: item.lease, is_done, waiting, is_ready, crew.take
        ):
            if done:
                end = crew.found(item.path, wait=True) or End("kept")
            else:
                crew.start(len(todo) - len(done_here))
                end = _run(item, crew, count, batches)
            done_here.add(item.path)
            outcome.add(item.what, end)
            count.end(item, end)
    return outcome


def _run(item: WorkItem, crew: Crew, count: Progressed, batches: Batches) -> End:
    """Compute an item, and store and report how it ended."""

    def compute(size: int) -> bool:
        done = 0

        def tick(images: int) -> None:
            nonlocal done
            done += images
            count(item.path, done, item.what)
            crew.progress(item.path, done, item.what)

        return item.compute(size, tick)

    crew.begin(item.path)
    started = time.monotonic()
    try:
        how: Literal["computed", "kept"] = "computed" if batches.run(item.what, compute) else "kept"
        end = End(how, seconds=time.monotonic() - started)
    except Diverged as error:
        item.store("diverged", str(error))
        end = End("diverged")
    except UserError:
        raise
    except Exception as error:  # the code of a method or metric may fail in any way
        if system_error(error) is not None:  # which the other items would meet as well
            raise
        reason = told(error)
        item.store("failed", reason)
        end = End("failed", reason)
    crew.end(item.path, end)
    return end


def _sums() -> defaultdict[str, float]:
    return defaultdict(float)


class _Counted:
    """Shows the images done of all items in a bar, by whichever process, and the time left.

    An item is taken to cost so many seconds per evaluation, which differ between groups, and per
    image that is measured. Both come from the items that were computed; until then they are equal.
    """

    def __init__(self, items: Sequence[WorkItem], bar: Bar) -> None:
        self._items = {item.path: item for item in items}
        self._seen = dict.fromkeys(self._items, 0)
        self._bar = bar
        self._all, self._done = _sums(), _sums()
        """Evaluations by group."""
        for item in items:
            self._all[item.group] += item.work
        self._images, self._measured = sum(item.measured for item in items), 0
        self._sampled, self._seconds = _sums(), _sums()
        self._measuring: list[float] = []
        self._kept = set[Path]()
        self._lock = Lock()  # other processes report in another thread

    def __call__(self, path: Path, done: int, what: str) -> None:
        """Count the images of an item that are done."""
        item = self._items.get(path)
        with self._lock:
            if item is None or (more := min(done, item.images) - self._seen[path]) <= 0:
                return
            self._seen[path] += more
            if path not in self._kept:
                self._done[item.group] += item.work * more / item.images
            self._bar.update(self._bar.done + more, what, self._share())

    def end(self, item: WorkItem, end: End) -> None:
        """Count an item that has ended, and learn from what it cost.

        One that was done before tells nothing about the time left.
        """
        sampling = item.seconds_of_work() if end.seconds else None
        with self._lock:
            if end.how == "kept" and not self._seen[item.path]:
                self._kept.add(item.path)
                self._all[item.group] -= item.work
                self._images -= item.measured
            else:
                self._measured += item.measured
            if sampling is not None:
                self._sampled[item.group] += item.work
                self._seconds[item.group] += sampling
                self._measuring.append(max(0.0, end.seconds - sampling) / item.images)
        self(item.path, item.images, item.what)
        with self._lock:
            self._bar.update(self._bar.done, item.what, self._share())

    def _share(self) -> float | None:
        """The part of the cost that is done; None if nothing is known about the evaluations."""
        sampled = sum(self._sampled.values())
        usual = sum(self._seconds.values()) / sampled if sampled else 1.0
        cost = {
            group: self._seconds[group] / self._sampled[group] if self._sampled[group] else usual
            for group in self._all
        }
        later = self._measuring[1:]  # the first item also loads what the others use
        measuring = median(later) if later else usual
        known = sum(cost[group] * self._all[group] for group in cost)
        done = sum(cost[group] * self._done[group] for group in cost)
        if known <= 0:
            return None
        return (done + measuring * self._measured) / (known + measuring * self._images)
