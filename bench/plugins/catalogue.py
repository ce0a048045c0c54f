"""What is registered, in lines of text, and a copy of these on disk.

Built-ins and plugins need torch, which takes seconds to import. The copy needs none. It counts only
while the source files and the installed plugins are those that it was made from.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

import bench
import methods
import metrics
from bench.data.card import prepared_names
from bench.experiment.identity import digest
from bench.experiment.protocols import unknown_metric
from bench.system.errors import OF_PLUGIN, unknown, unknown_method
from bench.system.files import read_whole, write_bytes

if TYPE_CHECKING:
    from methods.rules import Rule

LOADER = "bench.plugins.load"
Lines = Mapping[str, tuple[tuple[str, ...], ...]]
"""For each kind, such as "methods", a tuple per entry: its name first, last its "(origin)"."""


@dataclass(frozen=True)
class _Copy:
    """The lines, a hash of what they were made from, and the files of plugins among that."""

    made_from: str
    files: tuple[str, ...]
    lines: Lines


_COPIES = TypeAdapter(_Copy)


def known_lines() -> Lines | None:
    """The lines of the copy; None if there is no valid one, or if this process has the registry."""
    if LOADER in sys.modules:
        return None
    try:
        copy = _COPIES.validate_json(read_whole(_place()))
    except (OSError, ValidationError):
        return None
    return copy.lines if copy.made_from == _state(copy.files) else None


def load(plugins: Sequence[Path] = ()) -> list[str]:
    """Load all plugins, as `load_plugins` does, and copy what is then registered if it is new."""
    known = known_lines()
    registered_before = LOADER in sys.modules
    from bench.plugins.load import load_plugins

    problems = load_plugins(plugins)
    if not (known or registered_before or plugins or problems):
        files = tuple(sorted(_plugin_files()))
        content = _COPIES.dump_json(_Copy(_state(files), files, registered_lines()))
        with suppress(OSError):  # without a copy, everything is only slower
            write_bytes(_place(), content)
    return problems


def refuse_unknown(given: Mapping[str, Sequence[str]]) -> None:
    """UserError for an unknown name, if the copy says that nothing has it.

    `given` has the names of "method", "rule", "metric", "extractor" and "dataset". Without a copy
    the command finds it by itself, after seconds.
    """
    lines = known_lines() if any(given.values()) else None
    if lines is None:
        return
    known = {kind: [line[0] for line in entries] for kind, entries in lines.items()}
    rules = [part.strip() for some in given.get("rule", ()) for part in re.split("[,+]", some)]
    for name in given.get("method", ()):
        if name and name not in known["methods"]:
            raise unknown_method(name, known["methods"], known["methods without presets"])
    for kind, names, advice in (
        ("guidance rule", rules, OF_PLUGIN),
        ("extractor", given.get("extractor", ()), ""),
    ):
        have = known[f"{kind.removeprefix('guidance ')}s"]
        for name in names:
            if name and name not in have and not name.startswith("diffusers:"):
                raise unknown(kind, name, have, advice)
    for name in given.get("metric", ()):
        if name not in known["metrics"]:
            raise unknown_metric(name, known["metrics"])
    have = [*known["datasets"], *prepared_names()]
    for name in given.get("dataset", ()):
        if name not in have and name not in known["data sets of presets"]:
            raise unknown("data set", name, have)


def registered_lines() -> Lines:
    """The lines of everything that is registered."""
    from bench.data import DATASETS
    from bench.plugins.load import ORIGINS
    from bench.system.launch import LAUNCHERS
    from methods import METHODS
    from methods.rules import RULES
    from metrics import EXTRACTORS, METRICS

    presets = {p.dataset for method in METHODS.values() for p in method.presets.values()}
    described: dict[str, Iterable[tuple[str, ...]]] = {
        "methods": ((n, c.summary) for n, c in METHODS.items()),
        "rules": ((n, c.summary, rule_knobs(c)) for n, c in RULES.items()),
        "metrics": (
            (n, "by default" if c.default else "on request", c.summary) for n, c in METRICS.items()
        ),
        "datasets": ((n, c.summary) for n, c in DATASETS.items()),
        "launchers": ((n, c.summary) for n, c in LAUNCHERS.items()),
        "extractors": ((n, getattr(e, "summary", "")) for n, e in EXTRACTORS.items()),
        "data sets of presets": ((n,) for n in sorted(presets)),
        "methods without presets": ((n,) for n, c in METHODS.items() if c.trains and not c.presets),
    }
    return {
        kind: tuple((*line, f"({ORIGINS.get((kind, line[0]), '')})") for line in lines)
        for kind, lines in described.items()
    }


def rule_knobs(rule: type[Rule[Any]]) -> str:
    """Knobs of a rule with their defaults, such as "eta=0.5, momentum=0"; '' if it has none."""
    found = []
    for name, field in rule.knobs_type.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        value = f"{default:.6g}" if isinstance(default, float) else f"{default}"
        found.append(name if field.is_required() else f"{name}={value}")
    return ", ".join(found)


def _place() -> Path:
    """The copy of this installation, in the user's cache folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    own = digest({"packages": [str(folder) for folder in _packages()]})
    return cache / "guidance-bench" / f"registered-{own[:12]}.json"


def _packages() -> list[Path]:
    return [Path(package.__path__[0]).resolve() for package in (bench, methods, metrics)]


def _state(files: Iterable[str]) -> str:
    """A hash of the size and time of source files, and of the installed plugins."""
    sources = [*(p for folder in _packages() for p in folder.rglob("*.py")), *map(Path, files)]
    return digest({"sources": sorted(map(_stamp, sources)), "plugins": sorted(_points())})


def _stamp(file: Path) -> tuple[str, int, int]:
    try:
        found = file.stat()
    except OSError:
        return str(file), 0, 0
    return str(file), found.st_mtime_ns, found.st_size


def _points() -> Iterator[tuple[str, ...]]:
    for package in metadata.distributions():
        for point in package.entry_points:
            if point.group.startswith("guidance_bench."):
                yield point.group, point.name, point.value, package.version


def _plugin_files() -> Iterator[str]:
    """The files of all modules from the packages whose entry points were loaded."""
    packages = {point[2].partition(":")[0].partition(".")[0] for point in _points()}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and name.partition(".")[0] in packages:
            yield str(file)
