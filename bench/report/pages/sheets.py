"""Tables of any columns, as Markdown, TeX and HTML in the style of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.report.pages.page import html_cell
from bench.report.pages.tables import Text, md, md_cell
from bench.report.pages.tex import escape_tex, fitting, tex_cell


@dataclass(frozen=True)
class SheetLine:
    """One line: its label and a cell a column; `reference` sets it apart at the end."""

    label: str
    cells: tuple[Text, ...]
    reference: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table of one data set: `names` of its columns without the first, lines and footnotes."""

    dataset: str
    title: str
    first: str
    names: tuple[str, ...]
    lines: tuple[SheetLine, ...]
    notes: tuple[tuple[str, str], ...] = ()


def sheet_markdown(sheet: Sheet) -> str:
    """The table below its title as GitHub-flavoured Markdown."""
    names = [md(name) for name in (sheet.first, *sheet.names)]
    rows = [f"| {' | '.join(names)} |", "|" + " --- |" + " ---: |" * len(sheet.names)]
    for line in sheet.lines:
        label = f"*{md(line.label)}*" if line.reference else md(line.label)
        rows.append(f"| {' | '.join([label, *(md_cell(c) for c in line.cells)])} |")
    parts = [f"### {md(sheet.title)}", "\n".join(rows)]
    if sheet.notes:
        parts.append("  \n".join(f"<sup>{m}</sup> {md(t)}" if m else md(t) for m, t in sheet.notes))
    return "\n\n".join(parts)


def sheet_details(sheet: Sheet) -> str:
    """The table as HTML that opens when its title is clicked."""
    body = sheet_html(sheet).partition("</h3>")[2]
    return f"<details><summary>{escape(sheet.title)}</summary>{body}</details>"


def sheet_html(sheet: Sheet) -> str:
    """The table below its title as HTML."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in (sheet.first, *sheet.names))
    lines = []
    for line in sheet.lines:
        kind = ' class="floor"' if line.reference else ""
        cells = "".join(f"<td>{html_cell(cell)}</td>" for cell in line.cells)
        lines.append(f'<tr{kind}><th scope="row">{escape(line.label)}</th>{cells}</tr>')
    notes = "".join(
        f"<li>{f'<sup>{escape(mark)}</sup> ' if mark else ''}{escape(text)}</li>"
        for mark, text in sheet.notes
    )
    return (
        f"<h3>{escape(sheet.title)}</h3>"
        f'<div class="scroll" tabindex="0"><table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def sheet_tex(sheet: Sheet) -> str:
    """The table as TeX floats, split by columns where it is wider than the page."""
    widths = [
        max(len(name), *(len(line.cells[j].text) for line in sheet.lines))
        for j, name in enumerate(sheet.names)
    ]
    label = max(len(line.label) for line in sheet.lines)
    blocks = list(fitting(widths, label))
    out = []
    for i, block in enumerate(blocks):
        part = f" (part {i + 1} of {len(blocks)})" if len(blocks) > 1 else ""
        caption = f"{escape_tex(sheet.title)}{part}."
        out += ["", *_float(sheet, block, caption)]
    return "\n".join(out)


def _float(sheet: Sheet, block: range, caption: str) -> Sequence[str]:
    names = [escape_tex(name) for name in (sheet.first, *(sheet.names[j] for j in block))]
    rows = []
    for line in sheet.lines:
        shown = [escape_tex(line.label), *(tex_cell(line.cells[j]) for j in block)]
        rows += [r"\midrule"] * line.reference + [" & ".join(shown) + r" \\"]
    used = set(",".join(line.cells[j].marks for line in sheet.lines for j in block).split(","))
    notes = [
        (f"$^{{{mark}}}$ " if mark else "") + escape_tex(text)
        for mark, text in sheet.notes
        if not mark or mark in used
    ]
    return [
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{l{'r' * len(block)}}}",
        r"\toprule",
        " & ".join(names) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *([r"\par\smallskip\raggedright", r" \\ ".join(notes)] if notes else []),
        r"\end{table}",
    ]
