"""The document as one HTML page that links to its figures."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from bench.report.document import Document, Form


def html(document: Document, problems: Mapping[str, str], pdf: bool = False) -> str:
    """The page, with all text escaped; `problems` are sentences by the figure that failed.

    With `pdf`, it links to the PDF of every figure.
    """
    template = Environment(
        loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    ).get_template("page.html")
    return template.render(
        title=document.title,
        blocks=document.shown(Form.PAGE),
        problems=problems,
        pdf=pdf,
        kind_of=lambda block: type(block).__name__,
    )
