from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from bench.experiment.rows import write_row
from bench.report.build import write_report
from bench.report.document import Document, Line, Table, Text
from bench.report.numbers.comparison import compare
from bench.report.numbers.frame import prepare
from bench.report.options import ReportOptions
from bench.report.pages.contents import Findings, make_document
from bench.report.pages.markdown import markdown
from bench.report.pages.paper import BOLD, NO_RULE, REAL, PaperOptions, paper_document
from bench.report.pages.tex import tex
from bench.system.errors import UserError
from tests.bench.helpers import bench
from tests.bench.report.factory import NO_GUIDANCE, digits, row, value
from tests.bench.report.rules_factory import RULES, sweep

ODD = r"[x]* a_b & 100% #$^~\{}é中“…”"
latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")


def findings(rows):
    data = prepare(rows)
    return Findings(data, compare(data), {}, (), None, {})


def paper(rows, **options):
    found = findings(rows)
    return paper_document(found.data, found.tables, PaperOptions(**options))


def only(document):
    (table,) = [block for block in document.blocks if isinstance(block, Table)]
    return table


def lines(table, group):
    return {line.label: line for line in table.lines if line.group == group}


@pytest.fixture(scope="module")
def rules():
    return sweep("digits", rules=("apg", "interval"), methods=("edm", "igct", "ct"))


def test_paper_has_leading_measure_precision_and_recall_at_five_scales(rules):
    table = only(paper(rules))
    assert table.names == ("NFE", *(f"g = {g}" for g in (1, 2, 4, 7, 13)))
    assert list(dict.fromkeys(line.group for line in table.lines)) == [
        *("FD ↓", "Precision ↑", "Recall ↑"),
    ]
    assert table.caption == "FD, Precision and Recall on digits"
    assert table.notes[0] == ("", "300 generated and 897 reference samples, classifier features.")


def test_paper_repeats_the_numbers_of_the_full_tables(rules):
    found = findings(rules)
    fd = next(c for c in found.data.columns if c.metric == "fd")
    whole = {line.label: line.cells for line in found.tables[fd].lines}
    shown = lines(only(paper(rules)), "FD ↓")
    for label, name in (("igct", "igct, 1 step"), ("+ apg", "edm + apg, 18 steps")):
        # The full table starts with NFE and seconds, the scale 13 is its last.
        assert shown[label].cells[-1] == whole[name][-1]
        assert shown[label].cells[3] == whole[name][2 + 3]
    assert any(cell.bold for line in shown.values() for cell in line.cells)
    assert ("", BOLD) in only(paper(rules)).notes


def test_rules_are_below_their_method_and_empty_without_guidance(rules):
    table = only(paper(rules))
    shown = lines(table, "FD ↓")
    assert list(shown) == ["edm", "+ apg", "+ interval", "ct", "igct", "real vs. real (floor)"]
    assert shown["edm"].cells[1].text
    assert shown["+ apg"].cells[1] == Text("")
    assert {("", NO_RULE), ("", REAL)} <= set(table.notes)
    assert [c.text for c in shown["real vs. real (floor)"].cells][2:] == [""] * 4


def test_reasons_have_daggers_that_the_notes_explain():
    table = only(paper(digits(), guidance=(1.0, 4.0, 16.0), metrics=("fd",)))
    shown = lines(table, "FD ↓")
    assert (shown["ct"].cells[2], shown["edm"].cells[3]) == (Text("–", "‡"), Text("diverged", "†"))
    assert ("‡", f"skipped: {NO_GUIDANCE}") in table.notes
    assert ("", "Bold: the best of a column.") in table.notes
    text = tex(paper(digits(), guidance=(16.0,), metrics=("fd",)), "paper")
    assert r"diverged\textsuperscript{\dag{}}" in text
    assert r"\dag{}: diverged: NaN at step 3 of 18. " in text
    assert r"\label{tab:digits}" in text
    assert r"\input{paper}" in text


def test_markdown_of_a_paper_has_the_same_cells():
    text = markdown(paper(digits(), guidance=(1.0, 4.0)))
    assert "| method | NFE | g = 1 | g = 4 |" in text
    assert "| **FD ↓** | | | |" in text
    assert "\n| igct | 1 | 6.0 | **5.6** |\n" in text


def test_default_scales_are_spread_where_the_usual_ones_are_missing():
    rows = [row("digits", "edm", float(g), value("fd", 1.0 + g)) for g in range(20, 29)]
    assert only(paper(rows)).names[1:] == tuple(f"g = {g}" for g in (20, 22, 24, 26, 28))
    assert only(paper(rows[:2])).names[1:] == ("g = 20", "g = 21")


def test_metrics_are_named_with_or_without_their_k():
    rows = [
        row("digits", "edm", 1.0, value("precision_k3", 0.5), value("precision_k5", 0.6),
            value("fd", 3.0))
    ]  # fmt: skip
    for name, count in (("precision", 2), ("precision_k5", 1), ("fd", 1)):
        assert len(only(paper(rows, metrics=(name,))).lines) == count


def test_unknown_scale_or_metric_is_refused_before_anything_is_written(tmp_path):
    for options, message in (
        ({"guidance": (1.0, 3.5)}, "no row has g = 3.5; the rows have 1, 2, 4, 7, 10, 13, 16"),
        ({"metrics": ("fid",)}, "no row has 'fid'; the rows have contrast, fd, precision, recall"),
    ):
        with pytest.raises(UserError, match=message):
            write_report(digits(), tmp_path / "r", ReportOptions(paper=PaperOptions(**options)))
    assert not (tmp_path / "r").exists()


def test_sets_of_other_sizes_have_their_own_table():
    rows = [row("digits", "edm", 1.0, value("fd", 3.0, n=n), n=n) for n in (300, 50)]
    document = paper(rows)
    tables = [block for block in document.blocks if isinstance(block, Table)]
    assert [(t.key, t.notes[0][1][:12]) for t in tables] == [
        ("digits-300", "300 generate"),
        ("digits-50", "50 generated"),
    ]


@pytest.mark.usefixtures("empty_figures")
def test_options_of_the_command_choose_the_tables(tmp_path):
    for i, made in enumerate(digits()):
        key = f"{i:024d}"
        write_row(tmp_path / "default" / "cells", made.model_copy(update={"key": key}))
    options = ("--table-guidance", "1,4", "--table-metrics", "recall, fd", "--table-columns", "1")
    ran = bench("report", "--results", tmp_path, *options)
    assert ran.code == 0, ran.err
    text = (tmp_path / "default" / "report" / "paper.md").read_text(encoding="utf-8")
    assert "| method | NFE | g = 1 | g = 4 |" in text
    assert re.findall(r"\*\*(\w+) [↑↓]\*\*", text) == ["Recall", "FD"]
    text = (tmp_path / "default" / "report" / "paper.tex").read_text(encoding="utf-8")
    assert r"\begin{table}" in text
    assert r"\begin{table*}" not in text
    ran = bench("report", "--results", tmp_path, "--table-guidance", "high")
    assert ran.code == 2
    assert "--table-guidance 'high'" in ran.err


def compiled(folder, command):
    """The log of a TeX run without an error."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=300,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def complaints(log):
    return re.findall(r"Overfull .*|Float too large.*", log)


def odd_rows():
    """A large sweep with names and reasons that TeX could take for commands."""
    rows = sweep("digits", rules=RULES, scales=(1.0, 2.0, 4.0, 7.0, 13.0))
    rows += [row("digits", ODD, g, value("fd", 9.0, se=1.0), steps=3) for g in (1.0, 2.0)]
    rows.append(row("digits", ODD, 4.0, status="skip", reason=ODD, steps=3))
    return rows


@latex
def test_paper_compiles_in_one_and_two_columns_without_an_overfull_box(tmp_path):
    found = findings(odd_rows())
    for columns in (1, 2):
        made = paper_document(found.data, found.tables, PaperOptions(columns=columns))
        (tmp_path / "paper.tex").write_text(tex(made, "paper"), encoding="utf-8")
        for option in ("", "[twocolumn]"):
            source = (
                rf"\documentclass{option}{{article}}\usepackage{{booktabs,graphicx}}"
                r"\begin{document}\input{paper}\end{document}"
            )
            log = compiled(
                tmp_path, ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source]
            )
            assert complaints(log) == []


@latex
def test_full_tables_compile_by_the_command_in_their_header(tmp_path):
    text = tex(make_document(findings(odd_rows()), {}, [], [], []))
    many = Table("many", ("a",), (Line("[x]", (Text("1.0"),)), Line("*", (Text("2.0"),))))
    for made in (text, tex(Document("t", (), (many,) * 120))):
        (tmp_path / "tables.tex").write_text(made, encoding="utf-8")
        command = re.search(r"^% (pdflatex '.*')$", made, re.MULTILINE)[1]
        log = compiled(tmp_path, ["bash", "-c", command.replace(" ", " -halt-on-error ", 1)])
        assert complaints(log) == []


@latex
def test_long_names_are_made_to_fit(tmp_path):
    line = Line("m" * 120, (Text("1.0", error="± 0.1"),) * 3)
    table = Table("t", ("a", "b", "c"), (line,))
    (tmp_path / "tables.tex").write_text(tex(Document("t", (), (table,))), encoding="utf-8")
    source = (
        r"\documentclass{article}\usepackage{booktabs,graphicx}"
        r"\begin{document}\input{tables}\end{document}"
    )
    log = compiled(tmp_path, ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source])
    assert complaints(log) == []


def test_kid_far_below_zero_hints_at_samples_of_the_reference():
    def kid(method, g, number):
        return row("digits", method, g, value("kid", number, label="KID", se=0.5, se_method="J"))

    found = [kid("edm", 1.0, -10.0), kid("edm", 2.0, -12.5), kid("igct", 1.0, -2.0)]
    document = make_document(findings(found), {}, [], [], [])
    (sentence,) = [text for text in document.remarks if "standard errors below" in text]
    assert sentence == (
        "“edm, 18 steps” at g = 1, 2: KID @300 is 20 standard errors below zero, which other "
        "samples do not reach: the samples may be in the reference."
    )
