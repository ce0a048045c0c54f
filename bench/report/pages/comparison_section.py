"""The comparison of lines as parts of the page, of the Markdown and of the TeX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from bench.report.numbers.comparison import FILES, Comparison
from bench.report.numbers.frame import Column, Data
from bench.report.numbers.verdict import verdict
from bench.report.pages.comparison_tables import area_sheets, ranking_sheet
from bench.report.pages.sheets import Sheet, sheet_details, sheet_markdown, sheet_tex
from bench.report.pages.tables import md

Found = Mapping[str, Comparison]


def openings(data: Data, found: Found) -> dict[str, str]:
    """The paragraph of every data set, as plain text."""
    return {name: verdict(data, comparison) for name, comparison in found.items()}


def page_openings(data: Data, found: Found) -> dict[str, Sequence[str]]:
    """The paragraph and the table of hypervolumes of every data set, as HTML."""
    links = ", ".join(f'<a href="{name}">{name}</a>' for name in written(found))
    return {
        name: [
            f'<p class="verdict">{escape(text)}</p>',
            f"<p>All lines compared: {links}.</p>",
            *(sheet_details(sheet) for sheet in area_sheets(found[name])),
        ]
        for name, text in openings(data, found).items()
    }


def written(found: Found) -> list[str]:
    """The CSV files that there is something for."""
    parts = {
        "pareto.csv": any(c.fronts for c in found.values()),
        "hypervolume.csv": any(any(c.areas.values()) for c in found.values()),
    }
    return [name for name in FILES if parts.get(name, True)] if found else []


def page_rankings(found: Found) -> dict[Column, str]:
    """The ranking of every measure, as HTML."""
    return {column: sheet_details(sheet) for column, sheet in _rankings(found).items()}


def markdown_openings(data: Data, found: Found) -> dict[str, Sequence[str]]:
    """The paragraph and the table of hypervolumes of every data set, as Markdown."""
    return {
        name: [md(text), *(sheet_markdown(sheet) for sheet in area_sheets(found[name]))]
        for name, text in openings(data, found).items()
    }


def markdown_rankings(found: Found) -> dict[Column, str]:
    """The ranking of every measure, as Markdown that opens when it is clicked."""
    parts = {}
    for column, sheet in _rankings(found).items():
        body = sheet_markdown(sheet).partition("\n\n")[2]
        head = f"<details><summary>{escape(' '.join(sheet.title.split()))}</summary>"
        parts[column] = f"{head}\n\n{body}\n\n</details>"
    return parts


def tex_comparison(found: Found) -> str:
    """Hypervolumes and rankings as TeX, to stand behind the tables of measures."""
    sheets = [
        sheet
        for comparison in found.values()
        for sheet in (
            *area_sheets(comparison),
            *map(ranking_sheet, comparison.rankings.values()),
        )
    ]
    return "".join(f"{sheet_tex(sheet)}\n" for sheet in sheets)


def _rankings(found: Found) -> dict[Column, Sheet]:
    return {
        column: ranking_sheet(ranking)
        for comparison in found.values()
        for column, ranking in comparison.rankings.items()
    }
