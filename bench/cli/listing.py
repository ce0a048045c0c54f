"""`bench list`: everything registered, one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options
from bench.system.errors import unknown

if TYPE_CHECKING:
    from methods.rules import Rule


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

    kinds: dict[str, Callable[[], Iterable[tuple[str, ...]]]] = {
        "methods": _methods,
        "rules": _rules,
        "metrics": _metrics,
        "datasets": _datasets,
        "extractors": _extractors,
        "protocols": _protocols,
        "suites": _suites,
        "launchers": _launchers,
    }
    if what not in kinds:
        raise unknown("list", what, kinds)
    reporter, _ = options.begin(plugin, entry_points=what not in ("protocols", "suites"))
    table = Table.grid(padding=(0, 2))
    # Metrics that a sweep measures by default come first.
    for line in sorted(kinds[what](), key=lambda line: (what == "metrics" and line[1], line)):
        table.add_row(*line)
    reporter.show(table)


def _origin(what: str, name: str) -> str:
    from bench.plugins.load import ORIGINS

    return f"({ORIGINS[what, name]})"


def _methods() -> Iterator[tuple[str, ...]]:
    from methods import METHODS

    return ((n, c.summary, _origin("methods", n)) for n, c in METHODS.items())


def _rules() -> Iterator[tuple[str, ...]]:
    from methods.rules import RULES

    return ((n, c.summary, rule_knobs(c), _origin("rules", n)) for n, c in RULES.items())


def _metrics() -> Iterator[tuple[str, ...]]:
    from metrics import METRICS

    for name, cls in METRICS.items():
        default = "by default" if cls.default else "on request"
        yield name, default, cls.summary, _origin("metrics", name)


def _datasets() -> Iterator[tuple[str, ...]]:
    from bench.data import DATASETS
    from bench.data.card import prepared_cards

    yield from ((n, c.summary, _origin("datasets", n)) for n, c in DATASETS.items())
    yield from ((card.name, card.summary, "(prepared)") for card in prepared_cards())


def _protocols() -> Iterator[tuple[str, ...]]:
    from bench.experiment.protocols import PROTOCOLS

    return ((name, protocol.described) for name, protocol in PROTOCOLS.items())


def _suites() -> Iterator[tuple[str, ...]]:
    from bench.experiment.suite import builtin_suites

    return ((name, str(path)) for name, path in builtin_suites().items())


def _launchers() -> Iterator[tuple[str, ...]]:
    from bench.system.launch import LAUNCHERS

    return ((n, c.summary, _origin("launchers", n)) for n, c in LAUNCHERS.items())


def _extractors() -> Iterator[tuple[str, ...]]:
    from bench.evaluation.weights import find_files
    from metrics import EXTRACTORS
    from metrics.extractors.catalogue import SUMMARIES, WEIGHTS

    for name in EXTRACTORS:
        about = SUMMARIES.get(name)
        if about is None:
            yield name, "", "(from a plugin)"
            continue
        features = f", {about.dim} features" if about.dim else ""
        weights = "needs no file"
        if wanted := WEIGHTS.get(name):
            found = find_files(wanted)
            weights = (
                f"weights in {found[0].path.parent}" if found else f"weights missing: {wanted.file}"
            )
        yield name, f"{about.summary}{features}", f"({weights})"


def rule_knobs(rule: type[Rule[Any]]) -> str:
    """Knobs of a rule with their defaults, such as "eta=0.5, momentum=0"; '' if it has none."""
    found = []
    for name, field in rule.knobs_type.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        value = f"{default:.6g}" if isinstance(default, float) else f"{default}"
        found.append(name if field.is_required() else f"{name}={value}")
    return ", ".join(found)
