"""The document as TeX: its tables as floats."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import groupby

from bench.report.document import DASH, Document, Form, Heading, Line, Table, Text

_TEX = (
    {c: rf"\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    # LaTeX reads "\\ [" and "\\ *" as a row's end with an option.
    | {c: f"{{{c}}}" for c in "[]*"}
    | {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$"}
    | {"†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}", "…": r"\dots{}"}
    | {"\N{GREEK SMALL LETTER SIGMA}": r"$\sigma$", "\N{MULTIPLICATION SIGN}": r"$\times$"}
    | {"\N{MICRO SIGN}": r"$\mu$", "\N{GREEK SMALL LETTER MU}": r"$\mu$"}
    | {"“": "``", "”": "''", "’": "'", "\N{MINUS SIGN}": "$-$", DASH: "--"}
)
_ACCENTS = dict(
    zip(
        "\u0300\u0301\u0302\u0303\u0308\u030c",
        (r"\`", r"\'", r"\^", r"\~", r"\"", r"\v"),
        strict=True,
    )
)
_PAGE, _COLUMN = 380.0, 250.0
"""Points of a table at 8 pt: 7 pt type fits a line of LaTeX's article class, and a column of common
two-column classes."""
_LINES = 38
"""Table rows on a page of LaTeX's article class, below a caption and above notes."""
_FLUSHED = 10
"""Floats between page breaks: LaTeX holds a limited number of floats without a place."""
FIT = (
    r"\providecommand{\fittable}[1]{\sbox0{#1}\ifdim\wd0>\linewidth"
    r"\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi}"
)
"""The definition of a command that makes a table as narrow as the line."""


def tex(document: Document, name: str = "tables") -> str:
    """All tables as floats, for a file NAME.tex to include.

    Long and wide tables are split so that small type fits the page of the article class. A part
    that is too wide for a class is made smaller.
    """
    out = [
        *map(_comment, (document.title, *document.remarks)),
        r"% Needs \usepackage{booktabs,graphicx}. To see them alone:",
        r"% pdflatex '\documentclass{article}\usepackage{booktabs,graphicx}"
        rf"\begin{{document}}\input{{{name}}}\end{{document}}'",
        FIT,
    ]
    count = 0
    for block in document.shown(Form.TEX):
        match block:
            case Table():
                for part in _floats(block):
                    out += ["", *part]
                    count += 1
                    out += [r"\clearpage"] if count % _FLUSHED == 0 else []
            case Heading():
                out += ["", _comment(block.text)]
            case _:
                raise TypeError(f"TeX cannot show {type(block).__name__}")
    return "\n".join(out) + "\n"


def escape_tex(text: str) -> str:
    """Text as TeX prints it verbatim; characters that its fonts lack as their code points."""
    # Only math mode has a minus sign.
    number = re.fullmatch(r"-(\d.*)", text)
    head, body = ("$-$", number[1]) if number else ("", " ".join(text.split()))
    return head + "".join(map(_character, body))


def _character(c: str) -> str:
    if c in _TEX:
        return _TEX[c]
    if " " <= c <= "~":
        return c
    parts = unicodedata.normalize("NFD", c)
    if parts[0].isascii() and parts[1:] in _ACCENTS:
        return f"{_ACCENTS[parts[1:]]}{{{parts[0]}}}"
    return f"U+{ord(c):04X}"


def _comment(text: str) -> str:
    return f"% {' '.join(text.split())}"


def _floats(table: Table) -> Iterator[list[str]]:
    """The parts of a table that fit a page each, as lines of TeX."""
    parts = [(lines, block) for lines in _pages(table) for block in _blocks(table, lines)]
    for i, (lines, block) in enumerate(parts, start=1):
        yield list(_float(table, lines, block, i, len(parts)))


def _pages(table: Table) -> list[list[Line]]:
    """Lines that fit a page, cut between groups of lines if groups are short enough."""
    most = _LINES - 8 * table.narrow  # a narrow caption is long
    pages: list[list[Line]] = [[]]
    for _, some in groupby(table.lines, key=lambda line: line.group):
        group = list(some)
        if pages[-1] and len(pages[-1]) + len(group) > most:
            pages.append([])
        pages[-1] += group[:most]
        pages += [group[i : i + most] for i in range(most, len(group), most)]
    return pages


def _blocks(table: Table, lines: Sequence[Line]) -> Iterator[range]:
    """Runs of columns that fit a line at 8 pt next to the labels and the repeated columns."""
    label, *needed = (
        6 + max(map(_width, [Text(name), *cells]))
        for name, *cells in zip(
            (table.first, *table.names),
            *((Text(line.label), *line.cells) for line in lines),
            strict=True,
        )
    )
    room = (_COLUMN if table.narrow else _PAGE) - label - sum(needed[: table.repeated])
    start, used = table.repeated, 0.0
    for j in range(start, len(table.names)):
        if j > start and used + needed[j] > room:
            yield range(start, j)
            start, used = j, 0.0
        used += needed[j]
    yield range(start, len(table.names))


def _width(cell: Text) -> float:
    """Points of a cell at 8 pt, with its error and marks at 6 pt."""
    narrow = sum(map(cell.text.count, ".,il ()"))
    small = cell.error + cell.marks
    return 4.3 * len(cell.text) - 1.9 * narrow + 3.7 * len(small) - 1.6 * small.count(".")


def _float(
    table: Table, lines: Sequence[Line], block: range, part: int, parts: int
) -> Iterator[str]:
    lines = [line for line in lines if any(line.cells[j].text for j in block)]
    columns = [*range(table.repeated), *block]
    names = [table.first, *(table.names[j] for j in columns)]
    title = escape_tex(table.caption or table.title)
    title += f" (part {part} of {parts})." if parts > 1 else "."
    kind = "table" if table.narrow else "table*"
    yield rf"\begin{{{kind}}}"
    if table.key:
        signs = (f"{mark}: {text}" if mark else text for mark, text in table.notes)
        told = " ".join(sign if sign.endswith(".") else f"{sign}." for sign in signs)
        told = escape_tex(told) if part == 1 else "Notes as in part 1."
        yield rf"\sloppy\caption[{title}]{{{title} {told}}}"
        yield rf"\label{{tab:{table.key}{f'-{part}' if part > 1 else ''}}}"
    else:
        yield rf"\caption{{{title}}}"
    yield from (
        r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\fittable{{\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(map(_name, names)) + r" \\",
    )
    group = ""
    for i, line in enumerate(lines):
        if i == 0 or line.group != group or line.kind == "floor":
            yield r"\midrule"
        if line.group and (i == 0 or line.group != group):
            yield rf"\multicolumn{{{len(names)}}}{{l}}{{\itshape {escape_tex(line.group)}}} \\"
        group = line.group
        cells = (_cell(line.cells[j]) for j in columns)
        yield " & ".join([escape_tex(line.label), *cells]) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}}"
    used = {m for line in lines for j in columns for m in line.cells[j].marks.split(",")}
    notes = [
        (rf"\textsuperscript{{{mark}}} " if mark else "") + escape_tex(text)
        for mark, text in table.notes
        if not mark or mark in used
    ]
    if notes and not table.key:
        yield from (r"\par\smallskip\raggedright", r" \\ ".join(notes))
    yield rf"\end{{{kind}}}"


def _name(text: str) -> str:
    """The name of a column; a guidance scale is math."""
    return f"${text}$" if re.fullmatch(r"g = [\d.e+-]+", text) else escape_tex(text)


def _cell(cell: Text) -> str:
    """A cell with its error as a subscript and its marks as a superscript."""
    text = escape_tex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.bold else text
    if cell.error:
        text += rf"\textsubscript{{{escape_tex(cell.error.replace(' ', '', 1))}}}"
    return rf"{text}\textsuperscript{{{escape_tex(cell.marks)}}}" if cell.marks else text
