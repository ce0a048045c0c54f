from __future__ import annotations

import csv

import numpy as np
import pytest

from bench.cli.report import published_file
from bench.experiment.rows import Density
from bench.report.figures.axes import value_scale
from bench.report.figures.clouds import clouds, densities
from bench.report.figures.curves import metric_curve, precision_recall
from bench.report.figures.grids import sample_grid
from bench.report.figures.style import look, plain
from bench.report.numbers.frame import prepare
from bench.report.numbers.names import slug
from bench.report.numbers.published import curves, read_published
from bench.system.errors import UserError
from tests.bench.report.factory import SCALES, demo, digits, images, points, row, toy, value


def draw_curve(rows, metric, published=()):
    data = prepare(rows)
    (column,) = [c for c in data.columns if c.metric == metric]
    return metric_curve(data, column, published)


def lines(axes):
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines
    }


@pytest.fixture
def table(tmp_path):
    """Two published numbers of CIFAR-10 and two of another data set."""
    path = tmp_path / "published.csv"
    names = ["source", "dataset", "method", "guidance", "nfe", "metric", "value", "error", "note"]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(names)
        for g, fid in ((1, 1.9), (13, 32.0)):
            out.writerow(["paper", "cifar10", "cfg", g, 70, "fid_inception_n50000", fid, 0.1, "x"])
            p = ["paper", "cifar10", "cfg", g, 70, "precision_vgg16_k3_n50000", 0.5, 0.1, "x"]
            out.writerow(p)
            out.writerow(["paper", "imagenet64", "cfg", g, 70, "fid_inception_n50000", 9, 0.1, ""])
    return path


def test_curve_draws_every_value_and_the_floor():
    axes = draw_curve(digits(), "fd").axes[0]
    drawn = lines(axes)
    assert drawn["edm, 18 steps"] == (list(SCALES), [3.0 * 2.4**i for i in range(6)])
    assert drawn["ct, 1 step"] == ([1.0], [15.4])
    assert drawn["real vs. real (floor)"][1] == [3.4, 3.4]
    assert drawn["diverged (no value)"][0] == [16.0]
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "guidance g (1 = off)"
    assert axes.get_ylabel() == "FD ↓ (classifier features, n = 300)"


def test_zero_and_one_are_plotted():
    recall = draw_curve(digits(), "recall").axes[0]
    assert lines(recall)["edm, 18 steps"][1][-1] == 0.0
    assert lines(recall)["ct, 1 step"][1] == [1.0]
    low, high = recall.get_ylim()
    assert low < 0.0
    assert high > 1.0
    w1 = draw_curve(toy(), "w1").axes[0]
    assert lines(w1)["oracle, 18 steps"][1][0] == 0.0
    assert w1.get_yscale() == "symlog"
    assert w1.get_ylim()[0] < 0.0


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1.0, 31.0], "linear"),
        ([1.0, 33.0], "log"),
        ([0.0, 1.0, 33.0], "symlog"),
        ([0.0, 1.0], "linear"),
        ([-1.0, 0.01, 33.0], "linear"),
        ([], "linear"),
    ],
)
def test_scale_follows_the_span(values, scale):
    assert value_scale([values])[0] == scale


@pytest.mark.parametrize(
    ("lines", "scale"),
    [
        (([10.0, 140.0], [14.0, 15.0], [16.0]), ("log", 0.0)),
        (([10.0, 140.0], [14.0, 80.0], [16.0]), ("linear", 0.0)),
        (([-0.1, 8.0], [-0.2, 0.1], [0.0]), ("symlog", 0.2)),
        (([0.0, 2.0], [0.1, 0.3]), ("symlog", 0.3)),
        (([-4.0, 8.0], [-3.0, 0.1]), ("linear", 0.0)),
        (([1.0, 8.0], [2.0, 2.0]), ("linear", 0.0)),
        (([-3.0, -1.0], [-2.0]), ("linear", 0.0)),
    ],
)
def test_one_line_does_not_flatten_all_others(lines, scale):
    assert value_scale(lines) == scale
    assert value_scale(lines, wanted="linear") == ("linear", 0.0)


def test_several_seeds_are_thin_lines_with_their_mean():
    axes = draw_curve(toy(), "w1").axes[0]
    assert lines(axes)["edm, 18 steps"][1][1] == pytest.approx(0.235)
    seeds = [found for some in axes.collections for found in some.get_segments()]
    assert [found[:2].tolist() for found in seeds] == [
        [[1.0, 0.01], [2.0, 0.16]],
        [[1.0, 0.01], [2.0, 0.31]],
    ]


def test_interval_of_a_single_run_is_a_band_or_bar():
    def at(g, **errors):
        return row("digits", "edm", g, value("fd", 10.0, **errors))

    rows = [at(1.0, se=1.0), at(2.0, se=2.0), at(4.0), at(7.0, se=1.0, low=7.0, high=12.0)]
    axes = draw_curve(rows, "fd").axes[0]
    band, bar = axes.collections
    corners = [tuple(v) for path in band.get_paths() for v in path.vertices]
    for corner in ((1.0, 10 - 1.96), (1.0, 10 + 1.96), (2.0, 10 - 3.92), (2.0, 10 + 3.92)):
        assert any(np.allclose(corner, found, atol=1e-3) for found in corners)
    assert all(np.ptp(path.vertices[:, 0]) <= 1.0 for path in band.get_paths())
    assert bar.get_segments()[0].tolist() == [[7.0, 7.0], [7.0, 12.0]]


def test_interval_below_zero_stays_on_a_logarithmic_axis():
    rows = [row("digits", "edm", g, value("fd", 4.0**g, se=30.0)) for g in (1.0, 2.0, 4.0)]
    axes = draw_curve(rows, "fd").axes[0]
    assert axes.get_yscale() == "log"
    (band,) = axes.collections
    lowest = min(y for path in band.get_paths() for _, y in path.vertices)
    assert lowest == pytest.approx(2.0)
    assert axes.get_ylim()[0] > 1.0


def test_zero_and_one_are_plotted_with_their_intervals():
    rows = [
        row("digits", "edm", g, value("precision", y, se=0.0, low=low, high=high),
            value("recall", 1.0 - y, se=0.0, low=1.0 - high, high=1.0 - low))
        for g, y, low, high in ((1.0, 1.0, 0.9, 1.0), (2.0, 0.0, 0.0, 0.1))
    ]  # fmt: skip
    axes = draw_curve(rows, "precision").axes[0]
    assert lines(axes)["edm, 18 steps"][1] == [1.0, 0.0]
    (band,) = axes.collections
    assert {y for path in band.get_paths() for _, y in path.vertices} == {0.0, 0.1, 0.9, 1.0}
    data = prepare(rows)
    precision, recall = data.columns
    axes = precision_recall(data, precision, recall).axes[0]
    assert lines(axes)["edm, 18 steps"] == ([0.0, 1.0], [1.0, 0.0])
    bars = [segment.tolist() for some in axes.collections for segment in some.get_segments()]
    assert np.allclose(bars[0], [[0.0, 1.0], [0.1, 1.0]])
    assert bars[1] == [[0.0, 0.9], [0.0, 1.0]]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert left < 0.0
    assert bottom < 0.0
    assert min(right, top) > 1.0


def cifar():
    return [
        row("cifar10", "edm", g, value("fd", 2.0 * g, extractor="inception", n=50000))
        for g in (1.0, 13.0)
    ]


def test_published_curves_are_drawn_where_they_are_comparable(table):
    numbers = read_published(table)
    drawn = lines(draw_curve(cifar(), "fd", numbers).axes[0])
    assert drawn["cfg (published)"] == ([1.0, 13.0], [1.9, 32.0])
    few = [
        row("cifar10", "edm", 1.0, value("fd", 2.0, extractor="inception", n=300)),
        row("cifar10", "igct", 1.0, value("fd", 2.0, extractor="inception", n=300)),
    ]
    assert "cfg (published)" not in lines(draw_curve(few, "fd", numbers).axes[0])
    assert "cfg (published)" not in lines(draw_curve(digits(), "fd", numbers).axes[0])


def test_committed_numbers_have_a_place_and_known_values():
    numbers = read_published(published_file())
    assert len(numbers) > 190
    assert all(number.exact_place for number in numbers)
    assert {number.labels for number in numbers} == {"", "random"}
    edm = {(n.dataset, n.nfe): n.value for n in numbers if n.method == "edm" and n.metric == "fid"}
    assert edm[("cifar10", 35)] == 1.79
    assert edm[("imagenet64", 511)] == 1.36
    cfg = {(n.method, n.extractor): (n.guidance, n.value) for n in numbers if n.source == "EDM2"}
    assert cfg[("edm2-xxl-cfg", "inception")] == (1.2, 1.81)
    assert cfg[("edm2-xxl-cfg", "dinov2")] == (1.7, 33.09)
    # One number per method, guidance, NFE and metric of a source.
    names = ("source", "dataset", "method", "guidance", "nfe", "metric", "extractor")
    keys = [tuple(getattr(n, name) for name in names) for n in numbers]
    assert len(set(keys)) == len(keys)
    assert not any(n.source.endswith("README") for n in numbers)


def test_labels_of_a_published_curve_are_cited(table):
    with table.open(newline="") as file:
        records = [{**record, "labels": "random"} for record in csv.DictReader(file)]
    with table.open("w", newline="") as file:
        out = csv.DictWriter(file, records[0])
        out.writeheader()
        out.writerows(records)
    [column] = [c for c in prepare(cifar()).columns if c.metric == "fd"]
    [curve] = curves(read_published(table), column)
    assert curve.cited == ("paper, x, random labels",)


def test_table_without_published_numbers_is_refused(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("metric,value\nfid,3\n")
    with pytest.raises(UserError, match="fields source, dataset"):
        read_published(path)
    with pytest.raises(UserError, match="Cannot read"):
        read_published(tmp_path / "none.csv")


def test_precision_against_recall_marks_the_ends():
    data = prepare(digits())
    by_name = {c.metric: c for c in data.columns}
    figure = precision_recall(data, by_name["precision"], by_name["recall"])
    axes = figure.axes[0]
    drawn = lines(axes)
    assert drawn["edm, 18 steps"][0][0] == 0.93
    assert drawn["edm, 18 steps"][1][0] == 0.75
    assert drawn["real vs. real (floor)"] == ([0.92], [0.91])
    written = sorted(text.get_text() for text in axes.texts)
    assert written == ["g = 1", "g = 1", "g = 1", "g = 13", "g = 13"]


def test_densities_have_a_row_per_method_and_reasons_for_empty_panels():
    figure = densities(prepare(toy()), "modes1d")
    grid = list(figure.axes)
    assert len(grid) == 4 * 5
    assert [axes.get_title() for axes in grid[:5]] == [
        "g = 1",
        "g = 4",
        "g = 7",
        "g = 10",
        "g = 16",
    ]
    assert grid[0].get_ylabel() == "oracle, 18 steps"
    assert grid[11].texts[0].get_text().replace("\n", " ") == "ct takes no guidance"
    first = grid[0]
    assert len(first.patches) == 2
    # Counts become a density: each histogram has area 1, as has the exact curve.
    values, edges, _ = first.patches[0].get_data()
    assert np.sum(values * np.diff(edges)) == pytest.approx(1.0)
    x, y = first.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=1e-3)
    assert float(x[np.argmax(y)]) == pytest.approx(2.0, abs=0.02)


def test_clouds_have_circles_of_one_and_three_sigma():
    rows = [
        row("modes2d", "edm", g, value("w1", 0.1), preview=points(0.1 * g)) for g in (1.0, 13.0)
    ]
    figure = clouds(prepare(rows), "modes2d")
    axes = figure.axes[1]
    assert axes.get_title() == "g = 13"
    radii = [circle.radius for circle in axes.patches]
    assert radii == pytest.approx([0.2, 0.6] * 4)
    assert sum(len(some.get_offsets()) for some in axes.collections) == 400


def test_grid_enlarges_tiles_without_smoothing():
    data = prepare(digits())
    (series,) = [s for s in data.series("digits") if s.method == "igct"]
    axes = sample_grid(data, series).axes[0]
    shown = axes.images[0].get_array()
    # 6 scales x 10 tiles of 8 x 12 = 96 pixels, 4 pixels apart.
    assert shown.shape == (6 * 100 - 4, 10 * 100 - 4, 3)
    assert set(np.unique(shown)) == {0, 140, 255}
    assert [t.get_text() for t in axes.get_xticklabels()] == [str(k) for k in range(10)]
    assert [t.get_text() for t in axes.get_yticklabels()] == [f"g = {g:g}" for g in SCALES]


def test_grid_refuses_rows_of_other_classes():
    shifted = images(1).model_copy(update={"labels": (1, *range(1, 10))})
    rows = [
        row("digits", "edm", 1.0, value("fd", 1.0), preview=images(1)),
        row("digits", "edm", 2.0, value("fd", 1.0), preview=shifted),
    ]
    data = prepare(rows)
    with pytest.raises(ValueError, match="g = 2 are of other classes"):
        sample_grid(data, data.series("digits")[0])


def test_names_are_shown_verbatim():
    assert plain("a$b$") == r"a\$b\$"
    assert plain("_hidden") == " _hidden"
    assert plain("a\x1b[31m\nb") == r"a\x1b[31m b"
    assert slug("digits", "fd") == "digits-fd"
    assert slug("../x", "a") != slug("x", "a")
    assert "/" not in slug("../../etc", "a b")
    assert slug("FD") != slug("fd")


def test_drawing_leaves_no_global_state():
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    before, open_before = dict(mpl.rcParams), plt.get_fignums()
    with look():
        draw_curve(demo()[:30], "w1")
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == open_before


def test_samples_beyond_a_density_panel_are_counted_and_flatten_nothing():
    rows = toy()
    first = next(r for r in rows if isinstance(r.preview, Density))
    counts = [list(c) for c in first.preview.counts]
    counts[0] = [0] * (len(counts[0]) - 1) + [sum(counts[0])]
    spiked = first.preview.model_copy(update={"counts": tuple(map(tuple, counts))})
    rows = [r.model_copy(update={"preview": spiked}) if r is first else r for r in rows]
    figure = densities(prepare(rows), "modes1d")
    texts = [t.get_text() for axes in figure.axes for t in axes.texts]
    share = sum(counts[0]) / sum(map(sum, counts))
    assert f"{share:.0%} beyond" in texts
    peak = max(line.get_ydata().max() for axes in figure.axes for line in axes.lines)
    assert max(axes.get_ylim()[1] for axes in figure.axes if axes.lines) <= 3.2 * peak
