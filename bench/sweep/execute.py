"""The loop over work items: shared with other processes, safe to interrupt and to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.experiment.place import Experiment
from bench.sweep.generate import Diverged
from bench.sweep.work import WorkItem
from bench.system import places
from bench.system.errors import UserError
from bench.system.failures import system_error
from bench.system.files import make_folder, tidy
from bench.system.leases import tidy_leases
from bench.system.memory import Batches
from bench.system.progress import Bar, Reporter, Say, Tick
from bench.system.sharing import in_turn, lease_path


@dataclass
class Outcome:
    """Counts of work items; `failed` holds one sentence per failed item."""

    computed: int = 0
    kept: int = 0
    skipped: int = 0
    diverged: int = 0
    failed: list[str] = field(default_factory=list)

    def summary(self, what: str) -> str:
        """The counts in a sentence, where `what` is computed: "cells"."""
        diverged = f" ({self.diverged} diverged)" if self.diverged else ""
        return (
            f"{self.computed} {what} computed{diverged}, {self.kept} kept, {self.skipped} skipped "
            f"with a reason, {len(self.failed)} failed."
        )


def execute_all(
    items: Sequence[WorkItem], experiment: Experiment, title: str, batch: int, reporter: Reporter
) -> Outcome:
    """`execute` under a progress bar of its own."""
    total = sum(item.images for item in items if not item.skip)
    with reporter.bar(title, total) as bar:
        return execute(items, experiment, bar, Batches(batch, reporter.say), reporter.say)


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

    def waiting(item: WorkItem, holder: str) -> None:
        say(f"{item.what}: waiting for {holder}.")

    for item, done in in_turn(
        [item for item in items if not item.skip],
        lambda item: lease_path(item.path),
        lambda item: item.is_done(batches.size),
        waiting,
    ):
        end = bar.done + item.images
        try:
            if done:
                outcome.kept += 1
            else:
                _run(item, outcome, bar, batches)
        except UserError:
            raise
        except Exception as error:  # the code of a method or metric may fail in any way
            if system_error(error) is not None:  # which the other items would meet as well
                raise
            reason = f"{type(error).__name__}: {error}"
            outcome.failed.append(f"{item.what}: {reason}")
            item.store("failed", reason)
        bar.update(end, item.what)
    return outcome


def _run(item: WorkItem, outcome: Outcome, bar: Bar, batches: Batches) -> None:
    start = bar.done

    def compute(size: int) -> bool:
        return item.compute(size, _ticker(bar, start, item))

    try:
        if not batches.run(item.what, compute):
            outcome.kept += 1
            return
    except Diverged as error:
        item.store("diverged", str(error))
        outcome.diverged += 1
    outcome.computed += 1


def _ticker(bar: Bar, start: int, item: WorkItem) -> Tick:
    """Counts the images of one item on top of those done before it."""
    done = 0

    def tick(images: int) -> None:
        nonlocal done
        done += images
        bar.update(start + min(done, item.images), item.what)

    return tick
