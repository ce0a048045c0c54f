"""What commands share: how they speak, and where a suite puts things."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.experiment.place import (
    DEFAULT_EXPERIMENT,
    Experiment,
)
from bench.experiment.suite import Study, read_suite
from bench.system.errors import UserError


def suite_place(suite: str, place: Experiment) -> tuple[tuple[Study, ...], Experiment]:
    """The studies of a suite and the experiment to put them in.

    The suite names its experiment; --experiment, where given, goes first.
    """
    found = read_suite(suite)
    if place.name == DEFAULT_EXPERIMENT:
        place = replace(place, name=found.experiment)
    return found.study, place


def flags(place: Experiment, suite: str | None = None) -> str:
    """The options that the next command needs in order to find the same experiment."""
    parts = []
    if suite is not None:
        parts.append(f" --suite {suite}")
    elif place.name != DEFAULT_EXPERIMENT:
        parts.append(f" --experiment {place.name}")
    if place.results != Path("results"):
        parts.append(f" --results {place.results}")
    return "".join(parts)


def refuse_beside_suite(**options: object) -> None:
    """UserError for options that were given although a suite decides what they say."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise UserError(
            f"--suite decides this itself: leave {', '.join(given)} away, or write a suite file "
            "of your own.",
            code=2,
        )
