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
        typer.Argument(help="methods, rules, metrics, datasets, extractors, protocols or suites."),
    ],
    plugin: options.Plugins = None,
) -> None:
    """List everything registered, one line each, with its origin."""
    from rich.table import Table

    from bench.data import DATASETS
    from bench.data.card import prepared_cards
    from bench.experiment.protocols import PROTOCOLS
    from bench.experiment.suite import builtin_suites
    from bench.plugins.load import ORIGINS
    from methods import METHODS
    from methods.rules import RULES
    from metrics import METRICS

    reporter, _ = options.begin(plugin)

    def origin(name: str) -> str:
        return f"({ORIGINS[what, name]})"

    kinds: dict[str, Callable[[], Iterable[tuple[str, ...]]]] = {
        "methods": lambda: ((n, c.summary, origin(n)) for n, c in METHODS.items()),
        "rules": lambda: ((n, c.summary, rule_knobs(c), origin(n)) for n, c in RULES.items()),
        "metrics": lambda: (
            (n, "by default" if c.default else "on request", c.summary, origin(n))
            for n, c in METRICS.items()
        ),
        "datasets": lambda: (
            *((n, c.summary, origin(n)) for n, c in DATASETS.items()),
            *((card.name, card.summary, "(prepared)") for card in prepared_cards()),
        ),
        "extractors": _extractors,
        "protocols": lambda: ((n, p.summary) for n, p in PROTOCOLS.items()),
        "suites": lambda: ((n, str(path)) for n, path in builtin_suites().items()),
    }
    if what not in kinds:
        raise unknown("list", what, kinds)
    table = Table.grid(padding=(0, 2))
    # Metrics that a sweep measures by default come first.
    for line in sorted(kinds[what](), key=lambda line: (what == "metrics" and line[1], line)):
        table.add_row(*line)
    reporter.show(table)


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
