"""Figures against strength, an outcome or a cost instead of guidance."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from bench.report.build import write_report
from bench.report.figures.along import along
from bench.report.numbers.across import across, check_across
from bench.report.numbers.frame import prepare
from bench.report.options import ReportOptions
from bench.system.errors import UserError
from tests.bench.report.test_matched import CFG, IDLE, SAME, line

ROWS = [*CFG, *SAME, *IDLE, *line("igct", lambda g: 0.1 * g, lambda g: 6.0)]


def measure(data, metric):
    return next(c for c in data.columns if c.metric == metric)


@pytest.mark.parametrize(
    ("x", "expected"),
    [("g", 3.0), ("nfe", 36.0), ("displacement", 2.0), ("precision", 0.8), ("seconds", 0.018)],
)
def test_place_of_a_line_is_guidance_a_cost_or_a_measure(x, expected):
    data = prepare(ROWS)
    cfg = next(s for s in data.series("digits") if s.method == "edm" and not s.rule)
    assert across(data, measure(data, "fd"), x).at(data, cfg, 3.0) == pytest.approx(expected)


def test_unknown_axis_lists_what_there_is():
    with pytest.raises(UserError, match=r"Unknown --x 'strength'.*displacement, fd, g, nfe"):
        check_across(prepare(ROWS), "strength")


def test_points_are_drawn_at_their_place_in_the_order_of_guidance():
    data = prepare(ROWS)
    fd = measure(data, "fd")
    lines = data.series("digits")
    figure = along(data, fd, lines, across(data, fd, "displacement"))
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == len(lines)
    own = {axes.get_title(): axes.lines[-1].get_xydata() for axes in panels}
    # CFG at another scale is on the curve of CFG; a rule that does nothing is at one place.
    curve = [[g - 1, 3 + g] for g in (1.0, 2.0, 3.0, 4.0, 5.0)]
    half = [[(g - 1) / 2, 3 + (1 + g) / 2] for g in (2, 3, 4, 5)]
    np.testing.assert_allclose(own["edm, 18 steps"], curve)
    np.testing.assert_allclose(own["half"][1:], half)
    assert (own["idle"][:, 0] == 0).all()
    assert all(any(isinstance(c, LineCollection) for c in a.collections) for a in panels)
    plt.close(figure)


def test_report_replaces_the_figures_against_guidance(tmp_path, empty_figures):
    plain = write_report(ROWS, tmp_path / "g", ReportOptions(all_figures=True))
    other = write_report(ROWS, tmp_path / "x", ReportOptions(all_figures=True, x="displacement"))
    before, after = ({path.stem for path in r.figures} for r in (plain, other))
    assert "digits-fd-classifier" in before - after
    assert {"digits-fd-classifier-n300-along-displacement"} <= after - before
    text = other.page.read_text("utf-8")
    assert "against displacement classifier @300: one panel per line" in text
    with pytest.raises(UserError, match="Unknown --x"):
        write_report(ROWS, tmp_path / "none", ReportOptions(x="strength"))
    assert not (tmp_path / "none").exists()
