"""The document as one HTML page that links to its figures."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType

from jinja2 import Environment, FunctionLoader, StrictUndefined

from bench.report.document import Block, Document, Form, Heading, Paragraph, Table
from bench.report.looks import CLASSES
from bench.report.numbers.names import slug

SCRIPTS = ("state", "charts", "samples", "table", "choices")
"""The files of the page's script, in their order."""
FEW_COLUMNS, MOST_COLUMNS = 8, 16
"""Of a table that fits on paper in its usual size, and in small print."""
MOST_LINES = 12
"""Of a table of text that is open at first."""


@dataclass
class Section:
    """A heading with its blocks, then its subsections, which are closed at first."""

    title: str
    id: str
    blocks: list[Block] = field(default_factory=list)
    parts: list[Section] = field(default_factory=list)


def html(
    document: Document,
    problems: Mapping[str, str],
    pdf: bool = False,
    cells: str = "",
    sizes: Mapping[str, tuple[int, int]] = MappingProxyType({}),
) -> str:
    """The page, with all text escaped; `problems` are sentences by the figure that failed.

    With `pdf`, it links to the PDF of every figure. `cells` is the JSON of its interactive part,
    which is missing without it; `sizes` are width and height of figures in pixels.
    """
    template = Environment(
        loader=FunctionLoader(_packaged),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template("page.html")
    script = script_text()
    return template.render(
        title=document.title,
        sections=_sections(document.shown(Form.PAGE)),
        problems=problems,
        pdf=pdf,
        cells=cells,
        script=script,
        policy=_policy(script),
        sizes=sizes,
        few_columns=FEW_COLUMNS,
        most_columns=MOST_COLUMNS,
        most_lines=MOST_LINES,
        classes=CLASSES,
        is_listed=lambda block: isinstance(block, Paragraph) and block.kind == "verdict",
        kind_of=lambda block: type(block).__name__,
    )


def _packaged(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def script_text() -> str:
    """The script of the page: its files in one function, so that no name in them is global."""
    parts = "\n".join(_packaged(f"script/{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _policy(script: str) -> str:
    """No script but this one, and no request except for images of the report."""
    found = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{found}'; style-src 'unsafe-inline'; "
        "img-src 'self' data: file:; base-uri 'none'; form-action 'none'"
    )


def _sections(blocks: Iterable[Block]) -> list[Section]:
    """The blocks by headings; a title of a table is a heading too."""
    taken: set[str] = set()

    def section(title: str) -> Section:
        name = found = f"s-{slug(title)}"
        count = 1
        while found in taken:
            count += 1
            found = f"{name}-{count}"
        taken.add(found)
        return Section(title, found)

    sections = [Section("", "")]
    for block in blocks:
        if isinstance(block, Heading):
            found = section(block.text)
            (sections if block.level == 2 else sections[-1].parts).append(found)
            continue
        if isinstance(block, Table) and block.title:
            sections[-1].parts.append(section(block.title))
        parts = sections[-1].parts
        (parts[-1] if parts else sections[-1]).blocks.append(block)
    return sections
