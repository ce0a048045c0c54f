from __future__ import annotations

import re

from bench.report.document import DASH, Document, Form
from bench.report.numbers.frame import prepare
from bench.report.pages.markdown import markdown
from bench.report.pages.measures import measure_table
from bench.report.pages.tex import escape_tex, tex
from tests.bench.report.factory import NO_GUIDANCE, TOO_HIGH, demo, digits, row, toy, value


def tables(rows):
    data = prepare(rows)
    return {(c.dataset, c.metric): measure_table(data, c) for c in data.columns}


def document(*tables):
    return Document("Results", (), tables)


def cells(table, label):
    """Cells of a line by guidance scale, as text."""
    (line,) = [line for line in table.lines if line.label == label]
    return dict(zip((n.removeprefix("g = ") for n in table.names), line.cells, strict=True))


def scales(line):
    """The cells of a line without its costs."""
    return line.cells[2:]


def markdown_row(text, title, label):
    section = text.split(f"### {title}\n")[1].split("###")[0]
    (line,) = [x for x in section.splitlines() if x.startswith(f"| {label} |")]
    return [part.strip() for part in line.strip("|").split("|")]


def test_best_of_a_column_is_bold_by_direction():
    found = tables(digits())
    fd = found["digits", "fd"]
    assert cells(fd, "edm, 18 steps")["1"].bold
    assert not cells(fd, "igct, 1 step")["1"].bold
    assert cells(fd, "igct, 1 step")["2"].bold
    assert not cells(fd, "edm, 18 steps")["2"].bold
    recall = found["digits", "recall"]
    assert cells(recall, "ct, 1 step")["1"].bold
    contrast = found["digits", "contrast"]
    assert not any(cell.bold for line in contrast.lines for cell in scales(line))


def test_floor_has_a_separate_row_and_is_never_best():
    found = tables(digits())
    fd, precision = found["digits", "fd"], found["digits", "precision"]
    assert fd.lines[-1].kind == "floor"
    assert [line.kind for line in fd.lines].count("floor") == 1
    assert {cell.text for cell in scales(fd.lines[-1])} == {"3.4"}
    assert not any(cell.bold for cell in scales(precision.lines[-1]))
    assert scales(precision.lines[-1])[0].text == "0.910"


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


def test_seeds_give_mean_error_and_count():
    w1 = tables(toy())["modes1d", "w1"]
    # 0.01 + 0.15 and 0.01 + 0.30: mean 0.235, and the error of a mean of two is half their range.
    two = cells(w1, "edm, 18 steps")["2"]
    assert (two.text, two.error) == ("0.235", "± 0.075")
    assert any("standard error over 2 training runs" in text for _, text in w1.notes)
    third = row("modes1d", "edm", 1.0, value("w1", 0.04), train_seed=2)
    mixed = tables([*toy(), third])["modes1d", "w1"]
    assert cells(mixed, "edm, 18 steps")["1"].error == "± 0.010 (3)"
    assert cells(mixed, "edm, 18 steps")["2"].error == "± 0.075 (2)"
    assert any("training runs (their number is in brackets)" in text for _, text in mixed.notes)


def test_single_runs_state_their_error_and_its_source():
    rows = [
        row("digits", "edm", 1.0, value("fd", 3.0, se=0.123, se_method="jackknife, 20 groups")),
        row("digits", "igct", 1.0, value("fd", 234.5, se=12.0, se_method="jackknife, 20 groups")),
        row("digits", "ct", 1.0, value("fd", 4.0)),
    ]
    table = tables(rows)["digits", "fd"]
    shown = {line.label: (scales(line)[0].text, scales(line)[0].error) for line in table.lines}
    assert shown["edm, 18 steps"] == ("3.00", "± 0.12")
    assert shown["igct, 1 step"] == ("234", "± 12")
    assert shown["ct, 1 step"] == ("4.0", "")
    (note,) = [text for _, text in table.notes if "±" in text]
    assert "(jackknife, 20 groups), conditional on the reference set" in note
    assert "| **3.00** ± 0.12 |" in markdown(document(table), Form.DATASET)
    assert r"\textbf{3.00}\textsubscript{$\pm$0.12}" in tex(document(table))


def test_footnotes_separate_single_runs_from_means_over_seeds():
    known = {"se": 0.1, "se_method": "jackknife"}
    floor = row("digits", "real", 1.0, value("fd", 1.0, **known))
    several = [row("digits", "edm", 1.0, value("fd", x, **known), seed=int(x)) for x in (3.0, 4.0)]
    fd = tables([*several, floor])["digits", "fd"]
    assert [scales(line)[0].error for line in fd.lines] == ["± 0.50", "± 0.10"]
    notes = [text for _, text in fd.notes if text.startswith("±")]
    assert "over 2 sampling seeds:" in notes[0]
    assert notes[1].startswith("± of a single run is its standard error (jackknife)")
    one = row("digits", "ct", 1.0, value("fd", 9.0, **known))
    mixed = tables([*several, one, floor])["digits", "fd"]
    assert [scales(line)[0].error for line in mixed.lines] == ["± 0.50 (2)", "± 0.10", "± 0.10"]
    assert any(
        "over sampling seeds (their number is in brackets):" in text for _, text in mixed.notes
    )


def test_share_of_0_or_1_shows_the_end_of_its_interval():
    ends = {"low": 0.0, "high": 0.0126, "se": 0.0, "se_method": "binomial, Wilson interval"}
    top = {**ends, "low": 0.9874, "high": 1.0}
    rows = [
        row("digits", "edm", 1.0, value("recall", 0.0, **ends)),
        row("digits", "ct", 1.0, value("recall", 1.0, **top)),
    ]
    table = tables(rows)["digits", "recall"]
    shown = {line.label: (scales(line)[0].text, scales(line)[0].error) for line in table.lines}
    assert shown == {"edm, 18 steps": ("0.000", "≤ 0.013"), "ct, 1 step": ("1.000", "≥ 0.987")}
    assert cells(table, "ct, 1 step")["1"].bold
    assert any(text.startswith("≤ and ≥") for _, text in table.notes)
    assert r"1.000}\textsubscript{$\geq$0.987}" in tex(document(table))


def test_minimum_over_seeds_has_a_separate_line():
    numbers = {0: 5.0, 1: 4.0, 2: 6.0}
    rows = [
        row("digits", "edm", 1.0, value("fd", x), value("recall", 0.5), seed=seed)
        for seed, x in numbers.items()
    ]
    rows += [row("digits", "ct", 1.0, value("fd", 1.0), seed=seed) for seed in (0, 1)]
    found = tables(rows)
    fd = found["digits", "fd"]
    assert [line.label for line in fd.lines] == [
        *("edm, 18 steps", "edm, 18 steps: min of 3 seeds", "ct, 1 step")
    ]
    assert cells(fd, "edm, 18 steps")["1"].text == "5.00"
    minimum = cells(fd, "edm, 18 steps: min of 3 seeds")["1"]
    assert (minimum.text, minimum.bold) == ("4.00", False)
    assert any("comparison with their numbers" in text for _, text in fd.notes)
    assert [line.label for line in found["digits", "recall"].lines] == ["edm, 18 steps"]
    # Three training runs are not three seeds of one checkpoint.
    runs = [row("digits", "edm", 1.0, value("fd", 5.0 + s), train_seed=s) for s in range(3)]
    assert len(tables(runs)["digits", "fd"].lines) == 1


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
    assert [scales(line)[0].bold for line in tables(rows)["digits", "fd"].lines] == [True, True]


def test_markdown_shows_titles_costs_and_bold():
    data = prepare(demo())
    text = markdown(document(*(measure_table(data, c) for c in data.columns)), Form.DATASET)
    edm = markdown_row(text, "FD classifier @300 ↓", "edm, 18 steps")
    assert edm[1:4] == [f"18{DASH}36", "18 ms", "**3.0**"]
    assert markdown_row(text, "RMS contrast @300", "igct, 1 step")[3] == "0.300"
    assert (
        markdown_row(text, "Precision classifier @300 ↑", "ct, 1 step")[4] == f"{DASH}<sup>b</sup>"
    )
    assert f"<sup>b</sup> skipped: {NO_GUIDANCE}" in text


def test_markdown_keeps_a_pipe_in_a_name_in_its_cell():
    found = tables([row("digits", "a|b", 1.0, value("fd", 1.0))])
    assert "| a\\|b, 4 steps | 4 |" in markdown(document(*found.values()), Form.DATASET)


def test_tex_escapes_names_and_balances():
    rows = [*digits(), row("digits", "my_method", 1.0, value("fd", 0.5, label="FD 100%"))]
    text = tex(document(*tables(rows).values()))
    assert r"my\_method, 4 steps & 4 & 4 ms & \textbf{0.5}" in text
    assert not re.search(r"(?<!\\)_", "".join(x for x in text.splitlines() if x[:1] != "%"))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\toprule")
    assert r"FD classifier @300 $\downarrow$" in text
    assert rf"\textsuperscript{{b}} skipped: {NO_GUIDANCE}" in text
    assert escape_tex(r"a\b&c") == r"a\textbackslash{}b\&c"
    assert escape_tex("-0.05") == "$-$0.05"


def test_wide_tex_tables_are_split_without_losing_columns():
    rows = [row("digits", "edm", 1 + g / 2, value("fd", 10.0 + g)) for g in range(30)]
    text = tex(document(*tables(rows).values()))
    assert text.count(r"\begin{table*}") > 1
    assert f"(part 1 of {text.count(r'begin{table*}')})" in text
    for g in range(30):
        assert text.count(f"$g = {1 + g / 2:g}$") == 1
        assert text.count(f"{10 + g}.00") == 1


def test_times_under_load_are_marked_with_the_reason():
    free, loaded = (
        row("digits", method, 1.0, value("fd", 5.0), cpu_share=share)
        for method, share in (("edm", 0.97), ("igct", 0.4))
    )
    data = prepare([free, loaded])
    table = measure_table(data, data.columns[0])
    times = {line.label: line.cells[1] for line in table.lines}
    assert [(t.text, t.marks) for t in times.values()] == [("18 ms", ""), ("1 ms", "a")]
    assert dict(table.notes)["a"].startswith("Timed while other programs used the processor")
    unknown = prepare([row("digits", "edm", 1.0, value("fd", 5.0))])
    assert measure_table(unknown, unknown.columns[0]).lines[0].cells[1].marks == ""
