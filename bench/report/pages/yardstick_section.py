"""The section on the rule's error and the network's, as Markdown, TeX and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.report.numbers.yardstick import TITLE, Yardstick, yardstick_sheet
from bench.report.pages.page import Picture, html_figure
from bench.report.pages.sheets import sheet_html, sheet_markdown, sheet_tex
from bench.report.pages.tables import md


def yardstick_markdown(found: Sequence[Yardstick]) -> str:
    """The section to stand behind the other tables; '' without content."""
    if not found:
        return ""
    parts = [f"## {md(TITLE)}", *(sheet_markdown(yardstick_sheet(one)) for one in found)]
    return "\n" + "\n\n".join(parts) + "\n"


def yardstick_tex(found: Sequence[Yardstick]) -> str:
    """The same as TeX."""
    if not found:
        return ""
    return "\n".join([f"\n% {TITLE}", *(sheet_tex(yardstick_sheet(one)) for one in found)]) + "\n"


def yardstick_html(found: Sequence[Yardstick], pictures: Sequence[Picture]) -> list[str]:
    """The section of the page, none without content."""
    if not found and not pictures:
        return []
    parts = [f"<h2>{escape(TITLE)}</h2>"]
    if found:
        parts.append('<p>The same numbers: <a href="yardstick.csv">yardstick.csv</a>.</p>')
    for dataset in dict.fromkeys(
        [*(one.column.dataset for one in found), *(p.plan.dataset for p in pictures)]
    ):
        parts += [sheet_html(yardstick_sheet(o)) for o in found if o.column.dataset == dataset]
        parts += [html_figure(p) for p in pictures if p.plan.dataset == dataset]
    return ["\n".join(parts)]
