"""`bench list`: everything registered, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import typer

from bench.cli import options
from bench.system.errors import unknown


def list_command(
    what: Annotated[
        str,
        typer.Argument(
            help="methods, rules, metrics, datasets, extractors, protocols, suites or launchers."
        ),
    ],
    plugin: options.Plugins = None,
) -> None:
    """List everything registered, one line each, with its origin."""
    from rich.table import Table

    own: dict[str, Callable[[], Iterable[tuple[str, ...]]]] = {
        "protocols": _protocols,
        "suites": _suites,
    }
    shown: dict[str, Callable[[Iterable[tuple[str, ...]]], Iterable[tuple[str, ...]]]] = {
        "methods": iter,
        "rules": iter,
        "metrics": iter,
        "datasets": _with_prepared,
        "extractors": _with_weights,
        "launchers": iter,
    }
    if what not in {**own, **shown}:
        raise unknown("list", what, {**own, **shown})
    reporter, _ = options.begin(entry_points=False)
    lines = own[what]() if what in own else shown[what](options.registered(reporter, plugin)[what])
    table = Table.grid(padding=(0, 2))
    # Metrics that a sweep measures by default come first.
    for line in sorted(lines, key=lambda line: (what == "metrics" and line[1], line)):
        table.add_row(*line)
    reporter.show(table)


def _with_prepared(registered: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    from bench.data.card import prepared_cards

    yield from registered
    yield from ((card.name, card.summary, "(prepared)") for card in prepared_cards())


def _protocols() -> Iterator[tuple[str, ...]]:
    from bench.experiment.protocols import PROTOCOLS

    return ((name, protocol.described) for name, protocol in PROTOCOLS.items())


def _suites() -> Iterator[tuple[str, ...]]:
    from bench.experiment.place import builtin_suites

    return ((name, str(path)) for name, path in builtin_suites().items())


def _with_weights(registered: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    from bench.evaluation.weights import find_files
    from metrics.catalogue import SUMMARIES, WEIGHTS

    for name, summary, origin in registered:
        about = SUMMARIES.get(name)
        if about is None:
            yield name, summary, origin
            continue
        features = f", {about.dim} features" if about.dim else ""
        weights = "needs no file"
        if wanted := WEIGHTS.get(name):
            found = find_files(wanted)
            weights = (
                f"weights in {found[0].path.parent}" if found else f"weights missing: {wanted.file}"
            )
        yield name, f"{about.summary}{features}", f"({weights})"
