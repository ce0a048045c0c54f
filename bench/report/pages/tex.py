"""Tables as TeX."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bench.report.pages.tables import DASH, Table, Text, headed

_TEX = {
    **{c: rf"\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "±": r"$\pm$",
        DASH: "--",
        "\N{MINUS SIGN}": "$-$",
    },
    **{
        "\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$",
        "≥": r"$\geq$",
        "≤": r"$\leq$",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
    },
}


def escape_tex(text: str) -> str:
    """Text as TeX prints it verbatim."""
    # A leading minus is one only in math mode.
    number = re.fullmatch(r"-(\d.*)", text)
    head, body = ("$-$", number[1]) if number else ("", " ".join(text.split()))
    return head + "".join(_TEX.get(c, c) for c in body)


def tex(tables: Sequence[Table], head: Sequence[str]) -> str:
    """All tables as floats to be included; wide ones are split so that 8 pt type fits the page."""
    out = [
        *(f"% {' '.join(line.split())}" for line in head),
        r"% Needs \usepackage{booktabs}. To see them alone:",
        r"% pdflatex '\documentclass{article}\usepackage{booktabs}"
        r"\begin{document}\input{tables}\end{document}'",
    ]
    for table in tables:
        blocks = list(_blocks(table))
        for i, block in enumerate(blocks):
            part = f" (part {i + 1} of {len(blocks)})" if len(blocks) > 1 else ""
            caption = f"{escape_tex(table.column.dataset)}: {escape_tex(table.title)}{part}."
            out += ["", *_tex_float(table, block, caption)]
    return "\n".join(out) + "\n"


def _blocks(table: Table) -> Iterator[range]:
    """Return runs of guidance columns that fit the 345 pt of LaTeX's article class at 8 pt."""
    widths = [
        max(len(t) for t in (f"g = {g}", *(_shown(line.cells[j]) for line in table.lines)))
        for j, g in enumerate(table.guidance)
    ]
    label = max((len(line.label) for line in table.lines), default=0)
    yield from fitting(widths, label + 14)


def fitting(widths: Sequence[int], label: int) -> Iterator[range]:
    """Runs of columns of `widths` characters that fit the page beside `label` characters."""
    room = 345 - 4.3 * label - 20
    start, used = 0, 0.0
    for j, width in enumerate(widths):
        needed = 4.3 * width + 6
        if j > start and used + needed > room:
            yield range(start, j)
            start, used = j, 0.0
        used += needed
    yield range(start, len(widths))


def _tex_float(table: Table, block: range, caption: str) -> list[str]:
    names = ["method", "NFE", "s/image", *(f"$g = {table.guidance[j]}$" for j in block)]
    rows = []
    for heading, line in headed(table.lines):
        if heading:
            wide = rf"\multicolumn{{{len(names)}}}{{l}}{{\itshape {escape_tex(heading)}}} \\"
            rows += [r"\midrule", wide]
        cells = [line.label, line.nfe, line.seconds]
        shown = [*(escape_tex(c) for c in cells), *(tex_cell(line.cells[j]) for j in block)]
        rows += [r"\midrule"] * line.floor + [" & ".join(shown) + r" \\"]
    used = set(",".join(line.cells[j].marks for line in table.lines for j in block).split(","))
    notes = [
        (f"$^{{{mark}}}$ " if mark else "") + escape_tex(text)
        for mark, text in table.notes
        if not mark or mark in used
    ]
    return [
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}",
        r"\toprule",
        " & ".join(names) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *([r"\par\smallskip\raggedright", r" \\ ".join(notes)] if notes else []),
        r"\end{table}",
    ]


def tex_cell(cell: Text) -> str:
    """A cell as TeX."""
    text = escape_tex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    text = f"{text}$^{{{cell.marks}}}$" if cell.marks else text
    return rf"{text}\,{{\scriptsize {escape_tex(cell.error)}}}" if cell.error else text


def _shown(cell: Text) -> str:
    return f"{cell.text} {cell.error}" if cell.error else cell.text
