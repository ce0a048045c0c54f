from __future__ import annotations

from bench.report.numbers.comparison import compare
from bench.report.numbers.frame import prepare
from bench.report.numbers.verdict import named, verdict
from tests.bench.report.factory import row, value
from tests.bench.report.rules_factory import sweep
from tests.bench.report.test_ranking import rows

LAST = (
    "Significant means at 5% for these weights, adjusted for the number of lines or of their pairs "
    "(Holm)."
)
BEST = (
    "FD classifier @300, every line at its best scale (chosen by the same values, hence optimistic)"
)


def paragraph(found):
    data = prepare(found)
    (comparison,) = compare(data).values()
    return verdict(data, comparison)


def test_significant_leader_is_named_with_its_cost():
    text = paragraph(rows({"edm": [9.0, 3.0], "igct": [9.5, 6.0], "ct": [8.0]}, own=0.01))
    assert text.startswith(
        f"{BEST}: “edm, 18 steps” (g = 2: 3.0 ± 1.0) is significantly better than both other "
        "lines, then “igct, 1 step” (g = 2: 6.0 ± 1.0). It takes 36 network evaluations per "
        "image (0.018 s) at that scale. Averaged over g = 1, 2, for the 2 lines that have all of "
        "these: “edm, 18 steps” (6.0 ± "
    )
    assert ") is significantly better than the other line, “igct, 1 step” (7.8 ± " in text
    assert text.endswith(LAST)


def test_no_leader_is_claimed_without_significance():
    curves = {"edm": [5.0, 5.1], "igct": [5.1, 5.05], "guided-cd": [5.1, 5.2]}
    text = paragraph(rows(curves, own=3.0))
    assert (
        f"{BEST}: “edm, 18 steps” (g = 1: 5.0 ± 1.0) has the best value, but no other line differs "
        "significantly from it, so none is claimed to be best."
    ) in text
    assert "Of these the cheapest at its best scale is “igct, 1 step”, with 1 network" in text
    assert "better than" not in text
    assert "worse" not in text
    assert (
        "At g = 2, the highest, no line is shown to keep FD within 10% of its best; of 3 guided "
        "lines, 3 are undecided."
    ) in text


def test_tie_at_the_top_is_separated_from_the_rest():
    text = paragraph(rows({"edm": [5.0], "igct": [5.02], "ct": [9.0]}))
    assert (
        "“edm, 18 steps” (g = 1: 5.0 ± 1.0) has the best value, but “igct, 1 step” does not differ "
        "significantly from it; the other line is significantly worse."
    ) in text
    assert (
        "Of these the cheapest at its best scale is “igct, 1 step”, with 1 network evaluation"
        in (text)
    )


def test_values_without_errors_support_no_claim():
    found = [
        row("digits", method, g, value("fd", x + g))
        for method, x in (("edm", 5.0), ("igct", 9.0))
        for g in (1.0, 2.0)
    ]
    text = paragraph(found)
    assert (
        f"{BEST}: “edm, 18 steps” (g = 1: 6.000) has the best value; the values have no errors to "
        "compare them by, so nothing is claimed."
    ) in text
    assert "significantly" not in text
    assert "takes" not in text


def test_highest_scale_is_judged_by_the_error_of_the_excess():
    curves = {"edm": [30.0, 400.0], "igct": [50.0, 51.0], "guided-cd": [60.0, 66.0]}
    text = paragraph(rows(curves, own=0.01))
    assert (
        "At g = 2, the highest, “igct, 1 step” keeps FD within 10% of its best; of 3 guided lines, "
        "1 is significantly above that and 1 is undecided."
    ) in text


def test_precision_with_recall_is_judged_by_the_area():
    text = paragraph(sweep("digits", rules=(), scales=(1.0, 3.0), methods=("edm", "igct")))
    assert "By the area of Precision and Recall (classifier features): " in text


def test_several_seeds_choose_and_report_separately():
    found = rows({"edm": [3.0, 4.0], "igct": [6.0, 5.0]}, seeds=(0, 1))
    assert "every line at its best scale (chosen by other sampling seeds): " in paragraph(found)


def test_single_line_has_no_verdict():
    assert compare(prepare(rows({"edm": [3.0, 4.0]}))) == {}


def test_words_do_not_depend_on_the_order_of_rows():
    found = sweep("digits", rules=("apg", "cads"), scales=(1.0, 2.0, 4.0))
    assert paragraph(found) == paragraph(found[::-1])


def test_long_lists_are_cut():
    data = prepare(sweep("digits", rules=("a", "b", "c", "d"), scales=(1.0, 2.0), methods=("edm",)))
    lines = data.series("digits")
    assert named(lines[:1]) == "“edm, 18 steps”"
    assert named(lines[:2]) == "“edm, 18 steps” and “edm + a, 18 steps”"
    assert named(lines).endswith("“edm + b, 18 steps” and 2 others")
