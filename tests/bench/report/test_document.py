from __future__ import annotations

import pytest

from bench.report.document import (
    Details,
    Document,
    Facts,
    Figure,
    Form,
    Heading,
    Inline,
    Line,
    Paragraph,
    Problems,
    Table,
    Text,
    link,
    paragraph,
    words_table,
)
from bench.report.pages.html import html
from bench.report.pages.markdown import markdown
from bench.report.pages.tex import tex
from tests.bench.report.test_report import Page

ODD = '<b>A & \'b\' "c"_d"</b>'
TABLE = Table(
    "A & b",
    ("x ↓", "g = 2"),
    (
        Line("m<1>", (Text("0.5", bold=True), Text("–", "a"))),
        Line("ref", (Text("1", error="± 0.1"), Text("2")), "floor"),
    ),
    (("a", "why & how"), ("", "in general")),
)


def document(*blocks):
    return Document("Title & more", ("a < b",), blocks)


def test_table_in_three_forms():
    found = document(TABLE)
    text = markdown(found)
    assert text.startswith("# Title &amp; more\n\na &lt; b\n\n### A &amp; b\n\n| method | x ↓ |")
    assert "| m&lt;1> | **0.5** | –<sup>a</sup> |" in text
    assert "| *ref* | 1 ± 0.1 | 2 |" in text
    assert text.endswith("<sup>a</sup> why &amp; how  \nin general\n")
    page = html(found, {})
    assert "<h3>A &amp; b</h3>" in page
    assert '<th scope="row">m&lt;1&gt;</th><td><strong>0.5</strong></td>' in page
    assert '<tr class="floor"><th scope="row">ref</th><td>1 <small>± 0.1</small></td>' in page
    assert "<td>–<sup>a</sup></td>" in page
    assert "<sup>a</sup> why &amp; how" in page
    floats = tex(found)
    assert floats.startswith("% Title & more\n% a < b\n")
    assert r"\caption{A \& b.}" in floats
    assert r"method & x $\downarrow$ & $g = 2$ \\" in floats
    assert r"m\textless{}1\textgreater{} & \textbf{0.5} & --\textsuperscript{a} \\" in floats
    assert r"\midrule" + "\n" + r"ref & 1\textsubscript{$\pm$0.1} & 2" in floats
    assert r"\textsuperscript{a} why \& how \\ in general" in floats


def test_wide_tables_are_split_for_tex_without_losing_columns():
    names = tuple(f"c{i}" * 6 for i in range(12))
    line = Line("m", tuple(Text(f"{i}.0") for i in range(12)))
    text = tex(document(Table("t", names, (line,), repeated=1)))
    parts = text.count(r"\begin{table*}")
    assert parts == text.count(" of ") > 1
    assert text.count("& 0.0 ") == parts
    assert all(text.count(f"& {i}.0 ") == 1 for i in range(1, 12))


def test_width_of_a_tex_table_counts_errors():
    def parts(error):
        line = Line("m", (Text("1.0", error=error),) * 12)
        return tex(document(Table("t", ("c",) * 12, (line,)))).count(r"\begin{table*}")

    assert parts("") == 1
    assert parts("± 0.1") > 1


def test_every_block_of_the_page_is_escaped():
    blocks = [
        Problems(),
        Heading(ODD),
        Paragraph((ODD, Inline(ODD, "code")), kind="notes"),
        Facts(((ODD, ODD),)),
        Figure("one", ODD),
        Figure("two", ODD),
        words_table((ODD, ODD), [(ODD, "f" * 64)], code=True),
        Table(ODD, (ODD,), (Line(ODD, (Text(ODD, ODD, True, ODD),), "aside", ODD),), ((ODD, ODD),)),
        Details(ODD, (paragraph(ODD),)),
    ]
    page = html(document(*blocks), {"two": ODD}, pdf=True)
    assert "<b>" not in page
    assert "'b'" not in page
    found = Page(page)
    assert "".join(found.words).count(ODD) == 26
    assert "b" not in found.tags
    assert f"{ODD}. It would show: {ODD}" in found.words
    assert found.links == ["figures/one.png", "figures/one.png", "figures/one.pdf"]
    assert f"<code>{'f' * 64}</code>" in page


def test_blocks_appear_only_in_their_forms():
    blocks = [Heading(form.name, forms=form) for form in Form]
    found = document(*blocks, Paragraph(("see ", link("a.csv")), Form.MARKDOWN), Problems())
    shown = {
        "PAGE": html(found, {}),
        "MARKDOWN": markdown(found),
        "DATASET": markdown(found, Form.DATASET),
        "TEX": tex(found),
    }
    for name, text in shown.items():
        assert [form.name for form in Form if form.name in text] == [name]
    assert shown["MARKDOWN"].endswith("## MARKDOWN\n\nsee [a.csv](a.csv)\n")
    assert '<h2 id="s-page-' in shown["PAGE"]
    assert ">PAGE</h2>\n</main>" in shown["PAGE"]
    assert shown["TEX"].endswith("\n\n% TEX\n")
    with pytest.raises(TypeError, match="TeX cannot show Details"):
        tex(document(Details("a", (), Form.TEX)))
