"""Which run a command means, and what to run where there is none."""

from __future__ import annotations

from bench.data.find import find_dataset
from bench.experiment.place import Experiment
from bench.experiment.suite import flags
from bench.system.errors import UserError, unknown
from bench.training.runs import RunCard, make_card, method_class, trained_runs, unregistered
from methods import METHODS


def no_run(
    experiment: Experiment,
    method: str | None = None,
    dataset: str | None = None,
    suite: str | None = None,
) -> UserError:
    """That there is no trained run, with the command that trains one in the same experiment."""
    of = (f" of {method}" if method else "") + (f" on {dataset}" if dataset else "")
    command = train_command(experiment, method or "igct", dataset, suite)
    return UserError(f"There is no trained run{of} in {experiment.runs}: {command}.")


def train_command(
    experiment: Experiment, method: str, dataset: str | None = None, suite: str | None = None
) -> str:
    """The command that trains a method, or the runs of a suite, in the same experiment."""
    what = "" if suite else f" --method {method}" + (f" --dataset {dataset}" if dataset else "")
    return f"bench train{what}{flags(experiment, suite)}"


def fitting_runs(
    experiment: Experiment, run: str | None, method: str | None, dataset: str | None
) -> list[RunCard]:
    """The trained runs that fit a name, method and data set; UserError if there is none."""
    if method is not None:
        method_class(method)
    cards = trained_runs(experiment)
    if dataset is not None and not any(card.dataset == dataset for card in cards):
        find_dataset(dataset)
    if run is not None and cards:
        named = [card for card in cards if card.name == run]
        if not named:
            raise unknown("run", run, [card.name for card in cards])
        for option, asked, own in (
            ("--method", method, named[0].method),
            ("--dataset", dataset, named[0].dataset),
        ):
            if asked not in (None, own):
                raise UserError(f"Run {run!r} has {own!r}, not {option} {asked!r}.", code=2)
        return named
    fitting = [c for c in cards if method in (None, c.method) and dataset in (None, c.dataset)]
    if not fitting:
        raise no_run(experiment, method, dataset)
    return fitting


def find_run(
    experiment: Experiment, run: str | None, method: str | None, dataset: str | None
) -> RunCard:
    """The run by name, or the only one that fits method and data set; UserError otherwise.

    A method without training has a run on each data set of its presets. The data of a run need
    not be here.
    """
    if run is None and method is not None and not method_class(method).trains:
        return _untrained(method, dataset)
    found = fitting_runs(experiment, run, method, dataset)
    if len(found) > 1:
        names = ", ".join(card.name for card in found)
        raise UserError(f"Several runs fit; name one with --run: {names}.", code=2)
    (card,) = found
    reason = None if card.shape and card.method in METHODS else unregistered(card)
    if reason is not None:
        raise UserError(f"Run {card.name!r} cannot be sampled: {reason}.")
    return card


def _untrained(method: str, dataset: str | None) -> RunCard:
    names = sorted({preset.dataset for preset in method_class(method).presets.values()})
    if dataset is None and len(names) != 1:
        raise UserError(
            f"{method} is for several data sets; name one with --dataset: {', '.join(names)}.",
            code=2,
        )
    return make_card(method, data=find_dataset(dataset or names[0]))
