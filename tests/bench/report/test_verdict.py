from __future__ import annotations

import numpy as np
import pytest

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
    return " ".join(verdict(data, comparison))


def cells(found, method, own):
    """The rows without those of a method above one scale."""
    return [r for r in found if r.method != method or r.guidance <= own]


def area_sentence(text):
    return text[text.index("By the area") :].partition("Precision classifier")[0]


def test_significant_leader_is_named_with_its_cost():
    text = paragraph(rows({"edm": [9.0, 3.0], "igct": [9.5, 6.0], "ct": [8.0]}, own=0.01))
    assert text.startswith(
        f"{BEST}: “edm, 18 steps” (g = 2: 3.0 ± 1.0) is significantly better than both other "
        "lines, then “igct, 1 step” (g = 2: 6.0 ± 1.0). Averaged over g = 1, 2, for the 2 lines "
        "that have all of these: “edm, 18 steps” (6.0 ± "
    )
    cost = "“edm, 18 steps” takes 36 network evaluations per image (18 ms) at its best scale."
    assert cost in text
    assert ") is significantly better than the other line, “igct, 1 step” (7.8 ± " in text
    assert text.endswith(LAST)


def test_no_leader_is_claimed_without_significance():
    curves = {"edm": [5.0, 5.1], "igct": [5.1, 5.05], "guided-cd": [5.1, 5.2]}
    text = paragraph(rows(curves, own=3.0))
    assert (
        f"{BEST}: “edm, 18 steps” (g = 1: 5.0 ± 1.0) has the best value, but no other line differs "
        "significantly from it, so none is claimed to be best."
    ) in text
    assert (
        "Of the 3 lines that may be best, the cheapest at its best scale is “igct, 1 step”, with 1 "
        "network"
    ) in text
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
        "Of the 2 lines that may be best, the cheapest at its best scale is “igct, 1 step”, with 1 "
        "network evaluation per image (1 ms); “edm, 18 steps” takes 18."
    ) in text


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
        "1 is significantly above that and 1 is undecided. Furthest above its best is “edm, 18 "
        "steps” (13 times)."
    ) in text


def test_precision_with_recall_is_judged_by_the_area():
    text = paragraph(sweep("digits", rules=(), scales=(1.0, 3.0), methods=("edm", "igct")))
    assert "By the area of Precision and Recall (classifier features) over g = 1, 3: " in text


def test_areas_are_compared_over_the_same_scales():
    found = sweep("digits", rules=("apg",), scales=(1.0, 2.0, 3.0), methods=("edm", "igct", "ct"))
    alone = cells(found, "ct", own=1.0)
    text = paragraph(alone)
    assert "(classifier features) over g = 1, 2, 3: " in text
    assert "“ct, 1 step” lacks some of these scales and is not compared by it." in text
    # A line with a further scale is compared over the common ones.
    more = sweep("digits", rules=(), scales=(1.0, 2.0, 3.0, 4.0), methods=("igct",))
    wider = [r for r in alone if r.method != "igct"] + more
    assert "(classifier features) over g = 1, 2, 3: " in paragraph(wider)
    places = [x for x in wider if x.method == "igct" and x.guidance < 4]
    rest = [r for r in wider if r.method != "igct"]
    area = area_sentence(paragraph(wider))
    assert area == area_sentence(paragraph(rest + places))


def test_statements_are_separate_and_few():
    data = prepare(sweep("digits", rules=("apg", "cads"), scales=(1.0, 2.0, 4.0)))
    (comparison,) = compare(data).values()
    found = verdict(data, comparison)
    assert 4 <= len(found) <= 6
    assert all(text.endswith(".") for text in found)


def test_only_lines_that_keep_the_distance_without_a_rise_may_be_idle():
    scales, noise = (1.0, 2.0), np.random.default_rng(0).normal(size=20)
    curves = {
        "edm": ([9.0, 90.0], [0.8, 0.7]),  # worse: no rise, but guidance acts
        "igct": ([9.0, 9.0], [0.8, 0.8]),  # as without guidance
        "mg": ([9.0, 8.0], [0.7, 0.9]),  # better
    }
    found = [
        row("digits", method, g, *(
            value(metric, numbers[i], se=0.01, replicates=tuple(numbers[i] + 0.002 * noise))
            for metric, numbers in zip(("fd", "precision", "recall"), (fd, p, p), strict=True)
        ))
        for method, (fd, p) in curves.items()
        for i, g in enumerate(scales)
    ]  # fmt: skip
    text = paragraph(found)
    assert "“mg, 4 steps” and “igct, 1 step” keep FD within 10% of their best" in text
    assert (
        "“igct, 1 step” shows no significant rise of precision at any scale: guidance may hardly "
        "act there."
    ) in text
    assert "for 1 of 3 guided lines: “mg, 4 steps”." in text


def test_rules_at_g_of_1_are_not_named_as_best():
    shared = np.random.default_rng(0).normal(size=20)

    def cells(numbers, **changes):
        return [
            row("digits", method, g, value("fd", x, se=1.0, replicates=tuple(x + shared)),
                **changes, key=f"{method}{g}{changes}")
            for method, g, x in numbers
        ]  # fmt: skip

    found = cells([("edm", 1.0, 3.0), ("edm", 2.0, 30.0), ("igct", 1.0, 5.0), ("igct", 2.0, 5.0)])
    found += cells([("edm", 2.0, 20.0)], rule="apg", knobs_from="default")
    text = paragraph(found)
    assert "“edm, 18 steps” (g = 1: 3.0 ± 1.0) is significantly better than the other line" in text
    assert "For 1 line of a rule the best scale is g = 1, where no rule acts." in text


def test_limits_state_single_training_runs_and_cells_without_a_value():
    found = rows({"edm": [5.0, 5.1], "igct": [5.1, 5.05]})
    text = paragraph(found)
    assert "There is one training run of every trained method" in text
    found += rows({"edm": [5.2, 5.0]}, train_seed=1)
    found.append(row("digits", "igct", 9.0, status="diverged", reason="NaN"))
    text = paragraph(found)
    assert "There is one training run of igct" in text
    assert "1 cell diverged and has no value." in text


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


def test_flat_curve_of_an_untrained_run_is_not_praised():
    curves = {"edm": [9.0, 40.0], "igct": [15.0, 15.1], "guided-cd": [300.0, 300.5]}
    text = paragraph(rows(curves, own=0.01))
    assert (
        "At g = 2, the highest, “igct, 1 step” keeps FD within 10% of its best; of 3 guided lines, "
        "1 is significantly above that and 1 is flat but worse throughout. At its best “guided-cd, "
    ) in text
    assert "is significantly worse than all lines above theirs at g = 2: a flat curve is no" in text
    # As good as the line that guidance harms: kept, as before.
    text = paragraph(rows(curves | {"guided-cd": [39.0, 39.1]}, own=0.01))
    assert "flat but worse" not in text
    assert "“igct, 1 step” and “guided-cd, 4 steps” keep FD within 10% of their best" in text


def test_largest_n_opens_whatever_trial_cells_say():
    large = rows({"edm": [9.0, 3.0], "igct": [9.5, 6.0]}, own=0.01)
    trial = [
        r.model_copy(
            update={
                "n": 20,
                "key": f"trial {r.key}",
                "values": tuple(
                    v.model_copy(update={"n": 20, "value": 10 - v.value}) for v in r.values
                ),
            }
        )
        for r in large
    ]
    text = paragraph([*trial, *large])
    assert text.startswith(f"{BEST}: “edm, 18 steps”")
    assert "@20" not in text
    assert [c.n for c in prepare([*trial, *large]).columns] == [300, 20]


def test_seconds_under_load_compare_nothing():
    curves = {"edm": [9.0, 3.0], "igct": [9.5, 3.0]}
    alone = paragraph(rows(curves, own=3.0, cpu_share=0.95))
    assert "with 1 network evaluation per image (1 ms)" in alone
    loaded = paragraph(rows(curves, own=3.0, cpu_share=0.5))
    assert loaded == alone.replace("per image (1 ms)", "per image").replace(" (18 ms)", "")
    # A time of the same work that was taken alone is used.
    mixed = [
        r.model_copy(update={"cpu_share": 0.5, "seconds_per_image": 9.0}) if i % 2 else r
        for i, r in enumerate(rows(curves, own=3.0, seeds=(0, 1)))
    ]
    data = prepare(mixed)
    found = [data.cost(s, 1.0)[1] for s in data.series("digits")]
    assert found == pytest.approx([0.018, 0.001])
