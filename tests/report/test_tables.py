from __future__ import annotations

import re

import pytest

from bench.report.frame import prepare
from bench.report.tables import DASH, make_table, markdown, number
from bench.report.tex import escape_tex, tex
from tests.report.factory import NO_GUIDANCE, TOO_HIGH, demo, digits, row, toy, value


def tables(rows):
    data = prepare(rows)
    return {(c.dataset, c.metric): make_table(data, c) for c in data.columns}


def cells(table, label):
    (line,) = [line for line in table.lines if line.label == label]
    return dict(zip(table.guidance, line.cells, strict=True))


def markdown_row(text, title, label):
    section = text.split(f"### {title}\n")[1].split("###")[0]
    (line,) = [x for x in section.splitlines() if x.startswith(f"| {label} |")]
    return [part.strip() for part in line.strip("|").split("|")]


def test_the_best_of_a_column_is_bold_by_direction():
    found = tables(digits())
    fd = found["digits", "fd"]
    assert cells(fd, "edm, 18 steps")["1"].bold
    assert not cells(fd, "igct, 1 step")["1"].bold
    assert cells(fd, "igct, 1 step")["2"].bold
    assert not cells(fd, "edm, 18 steps")["2"].bold
    recall = found["digits", "recall"]
    assert cells(recall, "ct, 1 step")["1"].bold
    contrast = found["digits", "contrast"]
    assert not any(cell.bold for line in contrast.lines for cell in line.cells)


def test_the_floor_is_a_row_of_its_own_and_never_best():
    found = tables(digits())
    fd, precision = found["digits", "fd"], found["digits", "precision"]
    assert fd.lines[-1].floor
    assert [line.floor for line in fd.lines].count(True) == 1
    assert {cell.text for cell in fd.lines[-1].cells} == {"3.4"}
    assert not any(cell.bold for cell in precision.lines[-1].cells)
    assert precision.lines[-1].cells[0].text == "0.910"


def test_skips_and_divergence_carry_their_reasons():
    fd = tables(digits())["digits", "fd"]
    notes = dict(fd.notes)
    skipped = cells(fd, "ct, 1 step")["4"]
    assert (skipped.text, notes[skipped.marks]) == (DASH, f"skipped: {NO_GUIDANCE}")
    too_high = cells(fd, "igct, 1 step")["16"]
    assert (too_high.text, notes[too_high.marks]) == (DASH, f"skipped: {TOO_HIGH}")
    lost = cells(fd, "edm, 18 steps")["16"]
    assert (lost.text, notes[lost.marks]) == ("diverged", "diverged: NaN at step 3 of 18")
    assert cells(fd, "ct, 1 step")["16"].text == ""


def test_zero_and_one_are_values():
    recall = tables(digits())["digits", "recall"]
    assert cells(recall, "edm, 18 steps")["13"].text == "0.000"
    assert cells(recall, "ct, 1 step")["1"].text == "1.000"
    w1 = tables(toy())["modes1d", "w1"]
    assert cells(w1, "oracle, 18 steps")["1"].text == "0.000"
    assert cells(w1, "oracle, 18 steps")["1"].bold


def test_seeds_give_mean_spread_and_count():
    w1 = tables(toy())["modes1d", "w1"]
    # 0.01 + 0.15 and 0.01 + 0.30: mean 0.235, sample deviation 0.15 / sqrt(2).
    assert cells(w1, "edm, 18 steps")["2"].text == "0.235 ± 0.106"
    assert any("over 2 runs" in text for _, text in w1.notes)
    third = row("modes1d", "edm", 1.0, value("w1", 0.04), train_seed=2)
    mixed = tables([*toy(), third])["modes1d", "w1"]
    assert cells(mixed, "edm, 18 steps")["1"].text == "0.020 ± 0.017 (3)"
    assert cells(mixed, "edm, 18 steps")["2"].text == "0.235 ± 0.106 (2)"


def test_survivors_of_divergence_are_not_best():
    rows = [
        row("digits", "edm", 1.0, value("fd", 1.0)),
        row("digits", "edm", 1.0, status="diverged", reason="NaN", seed=1),
        row("digits", "igct", 1.0, value("fd", 2.0)),
        row("digits", "ct", 1.0, value("fd", 3.0)),
    ]
    fd = tables(rows)["digits", "fd"]
    assert not cells(fd, "edm, 18 steps")["1"].bold
    assert cells(fd, "edm, 18 steps")["1"].marks == "a"
    assert cells(fd, "igct, 1 step")["1"].bold


def test_ties_are_all_bold():
    rows = [row("digits", m, 1.0, value("fd", 2.0)) for m in ("edm", "igct")]
    assert [line.cells[0].bold for line in tables(rows)["digits", "fd"].lines] == [True, True]


@pytest.mark.parametrize(
    ("given", "digits_", "shown"),
    [(0.0, 3, "0.000"), (0.0002, 3, "2.0e-04"), (-0.05, 3, "-0.050"), (2e7, 1, "2.0e+07")],
)
def test_number_never_rounds_to_a_false_zero(given, digits_, shown):
    assert number(given, digits_) == shown


def test_markdown_shows_titles_costs_and_bold():
    data = prepare(demo())
    text = markdown([make_table(data, c) for c in data.columns], ["Results"])
    edm = markdown_row(text, "FD classifier @300 ↓", "edm, 18 steps")
    assert edm[1:4] == [f"18{DASH}36", "0.018", "**3.0**"]
    assert markdown_row(text, "RMS contrast @300", "igct, 1 step")[3] == "0.300"
    assert (
        markdown_row(text, "Precision classifier @300 ↑", "ct, 1 step")[4] == f"{DASH}<sup>b</sup>"
    )
    assert f"<sup>b</sup> skipped: {NO_GUIDANCE}" in text


def test_markdown_keeps_a_pipe_in_a_name_in_its_cell():
    found = tables([row("digits", "a|b", 1.0, value("fd", 1.0))])
    assert "| a\\|b, 4 steps | 4 |" in markdown(list(found.values()), ["Results"])


def test_tex_escapes_names_and_balances():
    rows = [*digits(), row("digits", "my_method", 1.0, value("fd", 0.5, label="FD 100%"))]
    text = tex(list(tables(rows).values()), ["Results"])
    assert r"my\_method, 4 steps & 4 & 0.004 & \textbf{0.5}" in text
    assert not re.search(r"(?<!\\)_", "".join(x for x in text.splitlines() if x[:1] != "%"))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule")
    assert r"FD classifier @300 $\downarrow$" in text
    assert rf"$^{{b}}$ skipped: {NO_GUIDANCE}" in text
    assert escape_tex(r"a\b&c") == r"a\textbackslash{}b\&c"
    assert escape_tex("-0.05") == "$-$0.05"


def test_wide_tex_tables_are_split_without_losing_columns():
    rows = [row("digits", "edm", 1 + g / 2, value("fd", 10.0 + g)) for g in range(30)]
    text = tex(list(tables(rows).values()), ["Results"])
    assert text.count(r"\begin{table}") > 1
    assert f"(part 1 of {text.count(r'begin{table}')})" in text
    for g in range(30):
        assert text.count(f"$g = {1 + g / 2:g}$") == 1
        assert text.count(f"{10 + g}.00") == 1
