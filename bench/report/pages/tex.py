"""The document as TeX: its tables as floats."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bench.report.document import DASH, Document, Form, Heading, Table, Text

_TEX = str.maketrans(
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    | {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$"}
    | {"\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$", "\N{MULTIPLICATION SIGN}": r"$\times$"}
    | {"\N{MINUS SIGN}": "$-$", DASH: "--"}
)
_WIDTH = 345.0
"""Points in a line of LaTeX's article class."""


def tex(document: Document) -> str:
    """All tables as floats to include; wide tables are split so that 8 pt type fits the page."""
    out = [
        *map(_comment, (document.title, *document.remarks)),
        r"% Needs \usepackage{booktabs}. To see them alone:",
        r"% pdflatex '\documentclass{article}\usepackage{booktabs}"
        r"\begin{document}\input{tables}\end{document}'",
    ]
    for block in document.shown(Form.TEX):
        match block:
            case Table():
                out += _floats(block)
            case Heading():
                out += ["", _comment(block.text)]
            case _:
                raise TypeError(f"TeX cannot show {type(block).__name__}")
    return "\n".join(out) + "\n"


def escape_tex(text: str) -> str:
    """Text as TeX prints it verbatim."""
    # Only math mode has a minus sign.
    number = re.fullmatch(r"-(\d.*)", text)
    head, body = ("$-$", number[1]) if number else ("", " ".join(text.split()))
    return head + body.translate(_TEX)


def _comment(text: str) -> str:
    return f"% {' '.join(text.split())}"


def _floats(table: Table) -> Iterator[str]:
    blocks = list(_blocks(table))
    for i, block in enumerate(blocks):
        part = f" (part {i + 1} of {len(blocks)})" if len(blocks) > 1 else ""
        yield ""
        yield from _float(table, block, f"{escape_tex(table.caption or table.title)}{part}.")


def _blocks(table: Table) -> Iterator[range]:
    """Runs of columns that fit the page at 8 pt next to the labels and the repeated columns."""
    label = max((len(line.label) for line in table.lines), default=0)
    room = _WIDTH - 4.3 * (label + 7 * table.repeated) - 20
    start, used = table.repeated, 0.0
    for j in range(start, len(table.names)):
        cells = [line.cells[j] for line in table.lines]
        texts = [table.names[j], *(f"{c.text} {c.error}".rstrip() for c in cells)]
        needed = 4.3 * max(map(len, texts)) + 6
        if j > start and used + needed > room:
            yield range(start, j)
            start, used = j, 0.0
        used += needed
    yield range(start, len(table.names))


def _float(table: Table, block: range, caption: str) -> Iterator[str]:
    columns = [*range(table.repeated), *block]
    names = [table.first, *(table.names[j] for j in columns)]
    yield from (
        r"\begin{table}",
        rf"\caption{{{caption}}}",
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(_name, names)) + r" \\",
        r"\midrule",
    )
    used = {m for line in table.lines for j in columns for m in line.cells[j].marks.split(",")}
    for heading, line in table.grouped:
        if heading:
            yield r"\midrule"
            yield rf"\multicolumn{{{len(names)}}}{{l}}{{\itshape {escape_tex(heading)}}} \\"
        if line.kind == "floor":
            yield r"\midrule"
        cells = (_cell(line.cells[j]) for j in columns)
        yield " & ".join([escape_tex(line.label), *cells]) + r" \\"
    notes = [
        (f"$^{{{mark}}}$ " if mark else "") + escape_tex(text)
        for mark, text in table.notes
        if not mark or mark in used
    ]
    yield from (r"\bottomrule", r"\end{tabular}")
    if notes:
        yield from (r"\par\smallskip\raggedright", r" \\ ".join(notes))
    yield r"\end{table}"


def _name(text: str) -> str:
    """The name of a column; a guidance scale is math."""
    return f"${text}$" if re.fullmatch(r"g = [\d.e+-]+", text) else escape_tex(text)


def _cell(cell: Text) -> str:
    text = escape_tex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    text = f"{text}$^{{{cell.marks}}}$" if cell.marks else text
    return rf"{text}\,{{\scriptsize {escape_tex(cell.error)}}}" if cell.error else text
