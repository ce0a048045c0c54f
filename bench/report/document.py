"""The content of a report: a tree of blocks, written as HTML, Markdown and TeX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import ClassVar, Literal

DASH = "\N{EN DASH}"
FileKind = Literal["png", "pdf"]


class Form(Flag):
    """The forms of a document; each block has the forms that it appears in."""

    PAGE = auto()
    MARKDOWN = auto()
    DATASET = auto()
    """A Markdown file for one data set: all its tables would be too much for one file."""
    TEX = auto()


EVERYWHERE = Form.PAGE | Form.MARKDOWN | Form.TEX
ON_SCREEN = Form.PAGE | Form.MARKDOWN
OF_DATASET = Form.PAGE | Form.DATASET


@dataclass(frozen=True)
class Inline:
    """A part of a paragraph: a link to a file of the report, or code."""

    text: str
    kind: Literal["link", "code"]


@dataclass(frozen=True)
class Paragraph:
    """Running text; `kind` is its style on the page."""

    parts: tuple[str | Inline, ...]
    forms: Form = Form.PAGE
    kind: Literal["", "verdict", "notes"] = ""


@dataclass(frozen=True)
class Heading:
    """A heading of level 2 or 3; a comment in TeX."""

    text: str
    level: int = 2
    forms: Form = Form.PAGE


@dataclass(frozen=True)
class Text:
    """One table cell, bold if it is among the best; `marks` are of its footnotes.

    `error` follows the text in small print, such as "± 0.12".
    """

    text: str
    marks: str = ""
    bold: bool = False
    error: str = ""
    code: bool = False


@dataclass(frozen=True)
class Line:
    """One table row.

    `kind` is "floor" for a reference below the others and "aside" for a line that restates the
    one above it. `group` is the heading of a group of lines, '' for none.
    """

    label: str
    cells: tuple[Text, ...]
    kind: Literal["", "floor", "aside"] = ""
    group: str = ""


@dataclass(frozen=True)
class Table:
    """A table below its title, '' for none; `first` heads the labels, `names` the other columns.

    `notes` are footnotes as (mark, text), with '' as the mark of general ones. TeX uses `caption`
    instead of the title, and repeats the first `repeated` columns in every part of a wide table.
    With a `key`, TeX has the label tab:KEY and puts the notes into the caption; a `narrow` table is
    one column wide. Tables of `words` have long text, the others numbers.
    """

    title: str
    names: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[tuple[str, str], ...] = ()
    first: str = "method"
    caption: str = ""
    repeated: int = 0
    key: str = ""
    narrow: bool = False
    words: bool = False
    forms: Form = EVERYWHERE

    @property
    def grouped(self) -> Iterator[tuple[str, Line]]:
        """Lines with the heading before them, '' within a group or without one."""
        group = ""
        for line in self.lines:
            yield line.group if line.group != group else "", line
            group = line.group


@dataclass(frozen=True)
class Figure:
    """A figure by the stem of its files."""

    name: str
    caption: str
    forms: ClassVar[Form] = Form.PAGE


@dataclass(frozen=True)
class Problems:
    """The list of figures that failed, which is filled in after drawing."""

    forms: ClassVar[Form] = Form.PAGE


@dataclass(frozen=True)
class Facts:
    """A list of names with their values."""

    facts: tuple[tuple[str, str], ...]
    forms: ClassVar[Form] = Form.PAGE


@dataclass(frozen=True)
class Details:
    """Blocks that open when their title is clicked."""

    title: str
    blocks: tuple[Block, ...]
    forms: Form = ON_SCREEN


Block = Heading | Paragraph | Table | Figure | Problems | Facts | Details


@dataclass(frozen=True)
class Document:
    """A title and blocks; Markdown and TeX have the `remarks` below the title.

    `datasets` has the documents with all tables of one data set, by the name of their file.
    """

    title: str
    remarks: tuple[str, ...]
    blocks: tuple[Block, ...]
    datasets: Mapping[str, Document] = field(default_factory=dict)

    def shown(self, form: Form) -> list[Block]:
        """The blocks of one form, in order."""
        return [block for block in self.blocks if form in block.forms]


def paragraph(*parts: str | Inline) -> Paragraph:
    """A paragraph that only the page has."""
    return Paragraph(parts)


def link(file: str) -> Inline:
    """A link to a file of the report, by its name."""
    return Inline(file, "link")


def words_table(names: Sequence[str], lines: Sequence[Sequence[str]], code: bool = False) -> Table:
    """A table of text for the page; with `code`, long hashes may break anywhere."""

    def cell(text: str) -> Text:
        return Text(text, code=code and len(text) >= 32 and " " not in text)

    shown = tuple(Line(label, tuple(cell(t) for t in cells)) for label, *cells in lines)
    return Table("", tuple(names[1:]), shown, first=names[0], words=True, forms=Form.PAGE)
