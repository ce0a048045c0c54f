"""What the files of a report were made from: those whose input is unchanged are not made again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

import bench
import metrics
from bench.experiment.identity import digest
from bench.experiment.rows import Frozen, Row
from bench.report.options import DEFAULT, ReportOptions
from bench.system.bounds import Name
from bench.system.files import read_whole, sha256, write_bytes

if TYPE_CHECKING:
    from rich.console import Console

RECORD = "drawn.json"
PAGE = "index.html"
LIBRARIES = ("jinja2", "matplotlib", "numpy", "pandas", "pillow", "scipy", "seaborn")


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report; `problems` has a sentence for every figure that failed."""

    summary: Path
    markdown: Path
    tex: Path
    page: Path
    figures: tuple[Path, ...]
    problems: tuple[str, ...]


def report_paths(
    report: Path, figures: Iterable[Path], problems: Iterable[str] = ()
) -> ReportPaths:
    """The files of the report in this folder."""
    return ReportPaths(
        summary=report / "summary.csv",
        markdown=report / "tables.md",
        tex=report / "tables.tex",
        page=report / PAGE,
        figures=tuple(sorted(figures)),
        problems=tuple(problems),
    )


class Made(Frozen):
    """A hash of what a file was made from, and its SHA-256."""

    made_from: Name
    sha256: Name


_RECORDS = TypeAdapter(dict[str, Made])


class Record:
    """The record in a report's folder, of its files by their names within the folder."""

    def __init__(self, report: Path) -> None:
        self._report = report

    @cached_property
    def _made(self) -> dict[str, Made]:
        try:
            return _RECORDS.validate_json(read_whole(self._report / RECORD))
        except (OSError, ValidationError):  # missing or damaged: everything is made
            return {}

    def keeps(self, files: Iterable[Path], made_from: str) -> bool:
        """Whether these files are there, unchanged, and were made from this."""
        known = {name: self._made.get(name) for name in map(self._name, files)}
        return all(
            made is not None and made.made_from == made_from and self._is_whole(name, made)
            for name, made in known.items()
        )

    def kept_report(self, made_from: str) -> ReportPaths | None:
        """The report, if it was made from this and all its files are unchanged."""
        page = self._made.get(PAGE)
        if page is None or page.made_from != made_from:
            return None
        if not all(self._is_whole(name, known) for name, known in self._made.items()):
            return None
        return report_paths(self._report, (self._report / n for n in self._made if "/" in n))

    def add(self, files: Iterable[Path], made_from: str) -> None:
        """Record files that were made."""
        for file in files:
            self._made[self._name(file)] = Made(made_from=made_from, sha256=sha256(file))
        self._write()

    def keep_only(self, files: Iterable[Path]) -> None:
        """Forget all other files."""
        names = set(map(self._name, files))
        if self._made.keys() - names:
            self._made = {name: known for name, known in self._made.items() if name in names}
            self._write()

    def _name(self, file: Path) -> str:
        return file.relative_to(self._report).as_posix()

    def _is_whole(self, name: str, known: Made) -> bool:
        try:
            return sha256(self._report / name) == known.sha256
        except OSError:
            return False

    def _write(self) -> None:
        content = _RECORDS.dump_json(dict(sorted(self._made.items())), indent=1)
        write_bytes(self._report / RECORD, content + b"\n")


def report_input(rows: Sequence[Row], options: ReportOptions) -> str:
    """SHA-256 of everything that a report depends on."""
    stored, edits = (
        sorted(hashlib.sha256(row.model_dump_json().encode()).hexdigest() for row in some)
        for some in (rows, options.inversions)
    )
    chosen = (options.paper, options.pdf, options.all_figures, options.x)
    return digest(
        {
            "code": code(),
            "rows": stored,
            "inversions": edits,
            "published": None if options.published is None else sha256(options.published),
            "note": dict(options.note),
            "options": repr(chosen),
        }
    )


def make_report(
    rows: Sequence[Row],
    out: Path,
    options: ReportOptions = DEFAULT,
    console: Console | None = None,
) -> ReportPaths:
    """`bench.report.build.write_report`, which is not called if nothing has changed.

    That is if `out` has the whole report of the same rows and options, by the same code.
    """
    if (kept := Record(out).kept_report(report_input(rows, options))) is not None:
        return kept
    from bench.report.build import write_report  # imports pandas and scipy

    return write_report(rows, out, options, console)


@cache
def code() -> str:
    """SHA-256 of the files that reports may depend on, and of the libraries that draw."""
    rooms = [Path(bench.__path__[0]) / name for name in ("report", "experiment", "system")]
    files = sorted(
        path
        for folder in (*rooms, Path(metrics.__path__[0]))
        for path in folder.rglob("*.*")
        if path.suffix in (".py", ".js", ".css", ".html")
    )
    hashed = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    return digest({"files": hashed, "libraries": [version(name) for name in LIBRARIES]})
