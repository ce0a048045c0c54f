"""The document as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from bench.report.document import (
    Block,
    Details,
    Document,
    Form,
    Heading,
    Inline,
    Paragraph,
    Table,
    Text,
)


def markdown(document: Document, form: Form = Form.MARKDOWN) -> str:
    """The tables below a title and remarks."""
    head = [f"# {verbatim(document.title)}", *map(verbatim, document.remarks)]
    return "\n\n".join([*head, *map(_block, document.shown(form))]) + "\n"


def verbatim(text: str) -> str:
    """Text escaped so that Markdown shows it verbatim; underscores within words are safe."""
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    text = re.sub(r"^([#>]|[-+](?= ))", r"\\\1", text)  # a heading, a quotation, a list
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _block(block: Block) -> str:
    match block:
        case Heading():
            return f"{'#' * block.level} {verbatim(block.text)}"
        case Paragraph():
            bullet = "* " if block.kind == "verdict" else ""
            return bullet + "".join(map(_inline, block.parts))
        case Table():
            return _table(block)
        case Details():
            # HTML, since Markdown has no block that opens on a click.
            summary = f"<details><summary>{escape(' '.join(block.title.split()))}</summary>"
            return "\n\n".join([summary, *map(_block, block.blocks), "</details>"])
        case _:
            raise TypeError(f"Markdown cannot show {type(block).__name__}")


def _inline(part: str | Inline) -> str:
    """A part of a paragraph, with the spaces that separate it from its neighbours."""
    if isinstance(part, Inline):
        return f"[{part.text}]({part.text})" if part.kind == "link" else verbatim(part.text)
    start, end = (" " if end.isspace() else "" for end in (part[:1], part[-1:]))
    return f"{start}{verbatim(part)}{end}"


def _table(table: Table) -> str:
    rows = [_row(map(verbatim, (table.first, *table.names)))]
    rows.append("|" + " --- |" + " ---: |" * len(table.names))
    for heading, line in table.grouped:
        if heading:
            rows.append(f"| **{verbatim(heading)}** |{' |' * len(table.names)}")
        label = verbatim(line.label)
        rows.append(_row([f"*{label}*" if line.kind else label, *map(_cell, line.cells)]))
    notes = [f"<sup>{mark}</sup> {verbatim(t)}" if mark else verbatim(t) for mark, t in table.notes]
    parts = [f"### {verbatim(table.title)}" if table.title else "", "\n".join(rows)]
    return "\n\n".join(part for part in (*parts, "  \n".join(notes)) if part)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Text) -> str:
    """A cell; its text is a number or a word of the report and needs no escaping."""
    text = f"**{cell.text}**" if cell.bold else cell.text
    marks = verbatim(cell.marks)
    text += marks if cell.marks == "*" else f"<sup>{marks}</sup>" if marks else ""
    return f"{text} {cell.error}" if cell.error else text
