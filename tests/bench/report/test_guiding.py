from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bench.report.numbers.frame import prepare
from bench.report.numbers.verdict import risen
from tests.bench.report.factory import row, value
from tests.bench.report.test_ranking import rows
from tests.bench.report.test_verdict import paragraph


def lines(found):
    data = prepare(found)
    return {s.method: rise for s, rise in risen(data, data.columns[0]).items()}


def test_rise_is_above_the_value_without_guidance():
    curves = {"edm": [0.7, 0.9, 0.3], "igct": [0.8, 0.8, 0.8], "guided-cd": [0.9, 0.6, 0.5]}
    found = rows(curves, own=0.01, metric="precision")
    assert lines(found) == {"edm": True, "igct": False, "guided-cd": False}


@pytest.mark.parametrize("gain", [0.01, 0.02, 0.03, 0.04, 0.06])
def test_rise_must_exceed_the_paired_error(gain):
    found = rows({"edm": [0.7, 0.7 + gain], "igct": [0.8, None]}, own=0.003, metric="precision")
    below, above = (np.array(r.values[0].replicates) for r in found[:2])
    left = above - below
    se = np.sqrt(19 / 20 * np.sum((left - left.mean()) ** 2))
    p = 2 * stats.t.sf(gain / se, df=19)
    assert lines(found) == {"edm": bool(p < 0.05)}


def test_more_scales_require_a_larger_rise():
    noise = np.random.default_rng(0).normal(size=20)
    left = noise / np.std(noise) * 0.02 / np.sqrt(19)  # the jackknife's error is .02

    def sweep(scales):
        none = tuple(0.7 + 0 * left)
        found = [row("digits", "edm", 1.0, value("precision", 0.7, se=0.02, replicates=none))]
        for g in range(2, scales + 2):
            some = value("precision", 0.75, se=0.02, replicates=tuple(0.75 + left))
            found.append(row("digits", "edm", float(g), some))
        return lines(found)

    assert sweep(1) == {"edm": True}  # 2.5 errors: p = .022
    assert sweep(4) == {"edm": False}


def test_no_answer_without_errors_or_g_of_1():
    assert lines([row("digits", "edm", g, value("precision", g / 9)) for g in (1.0, 2.0)]) == {}
    assert lines(rows({"edm": [None, 0.5, 0.9]}, own=0.01, metric="precision")) == {}


def test_verdict_names_the_lines_with_a_rise():
    curves = {"edm": [0.7, 0.9], "igct": [0.8, 0.8]}
    found = rows(curves, own=0.01, metric="precision")
    recall = rows({m: [0.7, 0.6] for m in curves}, own=0.01, metric="recall")
    both = [a.model_copy(update={"values": (*a.values, *b.values)}) for a, b in
            zip(found, recall, strict=True)]  # fmt: skip
    assert (
        "Precision classifier @300 rises significantly above its value at g = 1 at some scale for "
        "1 of 2 guided lines: “edm, 18 steps”."
    ) in paragraph(both)
