import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.patches import StepPatch

from bench.experiment.rows import Density
from bench.report.build import write_report
from bench.report.figures.figures import plan_yardsticks
from bench.report.figures.style import look
from bench.report.figures.yardstick_figure import densities, planes
from bench.report.numbers.frame import prepare
from bench.report.numbers.yardstick import (
    known_density,
    make_yardsticks,
    yardstick_frame,
)
from bench.report.pages.yardstick import yardstick_table
from metrics.base import ExactMixture
from metrics.errors import paired_difference, seeds_se
from metrics.tilt import tilt_distance
from tests.bench.report.factory import density, points, row, toy, value

SCALES = (1.0, 4.0, 13.0)


def replicates(mean, seed):
    rng = np.random.default_rng(seed)
    return tuple(mean + 0.01 * rng.standard_normal(20))


def w1(number, seed=0):
    return value("w1", number, se=0.01, se_method="jackknife", replicates=replicates(number, seed))


def rows(steps=18, **changes):
    """The exact denoiser and edm, plain and under the rule fbg."""
    found = []
    for i, g in enumerate(SCALES):
        for rule in ("", "fbg") if g != 1 else ("",):
            share = 0.1 if rule else 0.3
            key = f"{rule}{g}{steps}{changes}"
            common = {"rule": rule, "steps": steps, **changes}
            shown = density(share * i)
            found += [
                row("modes1d", "oracle", g, w1(share * i, 1), key=f"o{key}", preview=shown,
                    **common),
                row("modes1d", "edm", g, w1(2 * share * i + 0.02, 2), key=f"e{key}",
                    preview=density(share * i, 0.3), **common),
            ]  # fmt: skip
    return found


def only(found):
    (one,) = make_yardsticks(prepare(found))
    return one


def share_of(one, rule, g):
    (found,) = [s for s in one.shares if (s.series.rule, s.guidance) == (rule, g)]
    return found


@pytest.mark.parametrize(("rule", "per"), [("", 0.3), ("fbg", 0.1)])
def test_network_error_is_total_less_rule(rule, per):
    one = only(rows())
    for i, g in enumerate(SCALES):
        found = share_of(one, rule, g)
        assert found.rule.value == pytest.approx(per * i)
        assert found.total.value == pytest.approx(2 * per * i + 0.02)
        assert found.network.value == pytest.approx(per * i + 0.02)
        assert (found.seeds, found.error_of) == (1, "paired jackknife")


def test_network_error_has_a_paired_standard_error():
    found = share_of(only(rows()), "fbg", 13.0)
    edm, exact = w1(0.42, 2), w1(0.2, 1)
    expected = paired_difference(
        *(type(found.rule)(v.value, replicates=v.replicates) for v in (edm, exact))
    )
    assert found.network.se == pytest.approx(expected.se)


def test_several_training_runs_give_the_error_of_their_mean():
    more = [
        row("modes1d", "edm", 4.0, w1(number, 3), train_seed=seed)
        for seed, number in ((1, 0.7), (2, 0.9))
    ]
    found = share_of(only([*rows(), *more]), "", 4.0)
    expected = seeds_se([0.62 - 0.3, 0.7 - 0.3, 0.9 - 0.3])
    assert found.network.value == pytest.approx(expected.value)
    assert found.network.se == pytest.approx(expected.se)
    assert found.error_of == "training runs"


def test_without_replicates_there_is_no_error():
    plain = [
        row("modes1d", method, 4.0, value("w1", number))
        for method, number in (("oracle", 0.3), ("edm", 0.5))
    ]
    found = share_of(only(plain), "", 4.0)
    assert found.network.value == pytest.approx(0.2)
    assert (found.network.se, found.error_of) == (None, "")
    assert yardstick_table(only(plain)).lines[2].cells[0].text == "+0.200"


def test_only_common_seeds_are_compared():
    more = [row("modes1d", "edm", 4.0, w1(9.0, 4), seed=1)]
    found = share_of(only([*rows(), *more]), "", 4.0)
    assert found.network.value == pytest.approx(0.32)
    assert found.seeds == 1


def test_networks_of_other_steps_or_rules_are_not_compared():
    found = [r for r in rows() if r.method == "oracle"]
    found += [r for r in rows(steps=9) if r.method == "edm"]
    found += [row("modes1d", "igct", 4.0, w1(0.1)), row("modes1d", "edm", 4.0, w1(1), rule="apg")]
    assert only(found).shares == ()
    labels = [line.label for line in yardstick_table(only(found)).lines]
    assert labels == ["cfg: rule", "fbg: rule", "g-tilted density, exactly"]


def test_no_section_without_the_exact_denoiser():
    assert make_yardsticks(prepare([r for r in toy() if r.method != "oracle"])) == ()


def test_table():
    table = yardstick_table(only(rows()))
    assert table.names == ("g = 1", "g = 4", "g = 13")
    kinds = ("rule", "total, edm", "network, edm")
    labels = [f"{rule}: {kind}" for rule in ("cfg", "fbg") for kind in kinds]
    assert [line.label for line in table.lines] == [*labels, "g-tilted density, exactly"]
    share = table.lines[2].cells
    assert share[1].text.startswith("+0.32")
    assert share[1].marks == "*"
    se = share_of(only(rows()), "", 4.0).network.se
    assert float(share[1].error.removeprefix("± ")) == pytest.approx(se, rel=0.05)
    # Classes 20 std apart are not tilted at all.
    assert [float(cell.text) for cell in table.lines[-1].cells] == [0, 0, 0]
    assert table.lines[-1].kind == "floor"


def test_cell_without_a_result_is_empty():
    found = [r for r in rows() if (r.method, r.rule, r.guidance) != ("edm", "fbg", 13.0)]
    found.append(row("modes1d", "edm", 13.0, rule="fbg", status="diverged", reason="NaN", key="d"))
    table = yardstick_table(only(found))
    assert table.lines[4].label == "fbg: total, edm"
    assert [bool(cell.text) for cell in table.lines[4].cells] == [True, True, False]
    assert [bool(cell.text) for cell in table.lines[5].cells] == [True, True, False]


def test_frame():
    frame = yardstick_frame(make_yardsticks(prepare(rows())))
    assert len(frame) == 6
    line = frame[(frame.rule == "fbg") & (frame.guidance == 13)].iloc[0]
    assert (line.method, line.steps, line.n) == ("edm", 18, 300)
    assert line.rule_error == pytest.approx(0.2)
    assert line.total == pytest.approx(0.42)
    assert line.network == pytest.approx(0.22)
    assert line.low < line.network < line.high
    alone = [r for r in rows() if r.method == "oracle"]
    frame = yardstick_frame(make_yardsticks(prepare(alone)))
    assert set(frame.method) == {"oracle"}
    assert frame.total.isna().all()


def overlapping(shift=0.0):
    """Two classes whose tilt is far from the target."""
    known = density(shift)
    return Density(
        edges=known.edges, counts=known.counts, means=((0.5,), (-0.5,)), std=0.6
    )  # fmt: skip


def test_tilt_is_that_of_the_stored_density():
    found = [row("toy", "oracle", 4.0, w1(0.3), preview=overlapping())]
    exact = ExactMixture((np.array([[0.5]]), np.array([[-0.5]])), 0.6)
    assert only(found).tilt[4.0] == pytest.approx(tilt_distance(exact, 4.0), abs=1e-9)
    assert only(found).tilt[4.0] > 0.1


@pytest.mark.parametrize("std", [0.0, -0.5, -1e18, 1e18, 5e-324])
def test_stored_density_out_of_bounds_is_not_used(std):
    preview = density(0.0)
    assert known_density(iter([preview])) is not None
    assert known_density(iter([preview.model_copy(update={"std": std})])) is None
    assert known_density(iter([preview.model_copy(update={"means": ((2.0,), ())})])) is None
    far = preview.model_copy(update={"means": ((1e300,), (2.0,))})
    assert known_density(iter([far])) is None


@pytest.mark.usefixtures("empty_figures")
def test_report_has_the_section(tmp_path):
    write_report(rows(), tmp_path)
    page = (tmp_path / "index.html").read_text()
    heading = "The rule's error and the network's"
    assert page.count(">The rule&#39;s error and the network&#39;s</h2>") == 1
    assert 'src="figures/modes1d-yardstick.png"' in page
    assert 'href="yardstick.csv"' in page
    assert f"## {heading}" in (tmp_path / "tables.md").read_text()
    assert "network, edm" in (tmp_path / "tables.tex").read_text()
    assert len(pd.read_csv(tmp_path / "yardstick.csv")) == 6
    # A report without it leaves nothing of the old one behind.
    write_report([r for r in rows() if r.method != "oracle"], tmp_path)
    assert not (tmp_path / "yardstick.csv").exists()
    assert not (tmp_path / "figures" / "modes1d-yardstick.png").exists()
    assert heading not in (tmp_path / "tables.md").read_text()


def drawn(draw, found, dataset):
    with look():
        figure = draw(prepare(found), dataset)
        figure.draw_without_rendering()
    return figure


def test_densities_by_rule_and_scale():
    found = rows()
    figure = drawn(densities, found, "modes1d")
    panels = figure.axes
    assert len(panels) == 6
    assert [p.get_ylabel() for p in panels[::3]] == ["cfg", "fbg"]
    assert [p.get_title() for p in panels[:3]] == ["g = 1", "g = 4", "g = 13"]
    for panel, (rule, g) in zip(panels, itertools.product(("", "fbg"), SCALES), strict=True):
        exact, network = [p for p in panel.patches if isinstance(p, StepPatch)]
        stored = {
            r.method: r.preview
            for r in found
            if r.guidance == g and r.rule == (rule if g != 1 else "")
        }
        for patch, method in ((exact, "oracle"), (network, "edm")):
            heights, edges, _ = patch.get_data()
            counts = np.array(stored[method].counts[0], dtype=float)
            np.testing.assert_allclose(heights * np.diff(edges) * counts.sum(), counts, atol=1e-9)
        for line in panel.lines:
            x, y = line.get_data()
            assert np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-6)
    assert figure.get_suptitle() == "modes1d, class 0"


def test_tilted_curve_leaves_the_target_where_classes_overlap():
    found = [row("toy", "oracle", g, w1(0.3), preview=overlapping()) for g in (1.0, 8.0)]
    figure = drawn(densities, found, "toy")
    off, on = figure.axes
    means = [
        [np.trapezoid(line.get_ydata() * line.get_xdata(), line.get_xdata()) for line in p.lines]
        for p in (off, on)
    ]
    assert means[0] == pytest.approx([0.5, 0.5], abs=1e-6)
    assert means[1][0] == pytest.approx(0.5, abs=1e-6)
    assert means[1][1] > 0.8


def test_samples_outside_the_frame_are_counted():
    found = [r for r in rows() if r.rule == ""]
    found += [row("modes1d", "oracle", 4.0, w1(1), rule="far", preview=density(-3.0), key="far")]
    figure = drawn(densities, found, "modes1d")
    texts = [[t.get_text() for t in p.texts] for p in figure.axes]
    assert texts[:3] == [[], [], []]
    assert texts[4] == ["100% outside"]


def test_points_of_the_first_class():
    found = [
        row("modes2d", method, g, w1(0.3), preview=points(0.2 * g))
        for method in ("oracle", "edm")
        for g in (1.0, 4.0)
    ]
    figure = drawn(planes, found, "modes2d")
    assert len(figure.axes) == 2
    for axes, g in zip(figure.axes, (1.0, 4.0), strict=True):
        scattered = [c for c in axes.collections if isinstance(c, PathCollection)]
        stored = points(0.2 * g)
        own = np.array(stored.xy)[np.array(stored.labels) == 0]
        assert len(scattered) == 2
        for cloud in scattered:
            np.testing.assert_allclose(np.asarray(cloud.get_offsets()), own)
        # One and three standard deviations of the target around its mode.
        contours = [c for c in axes.collections if not isinstance(c, PathCollection)]
        radii = [
            np.linalg.norm(np.concatenate([p.vertices for p in c.get_paths()]) - 2, axis=1)
            for c in contours
        ]
        for radius in radii:
            assert radius.min() == pytest.approx(0.2, abs=0.005)
            assert radius.max() == pytest.approx(0.6, abs=0.01)


def test_each_data_set_has_one_figure():
    found = [*rows(), row("modes2d", "oracle", 1.0, w1(0.1), preview=points(0.0))]
    plans = list(plan_yardsticks(prepare(found)))
    assert [p.name for p in plans] == ["modes1d-yardstick", "modes2d-yardstick"]
    assert "thin line" in plans[0].caption
    assert "crosses" in plans[1].caption
    assert list(plan_yardsticks(prepare([r for r in rows() if r.method == "edm"]))) == []


def test_errors_of_the_tilted_distances_are_of_the_generated_set(tmp_path):
    tilted = value("kl_tilted", 0.4, se=0.1, se_method="jackknife, 20 groups")
    write_report([row("modes1d", "oracle", 4.0, tilted)], tmp_path)
    text = (tmp_path / "tables-modes1d.md").read_text()
    assert "counting the sampling of the generated set" in text
