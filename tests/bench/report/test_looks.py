from __future__ import annotations

import json
import re
from importlib.resources import files
from itertools import combinations

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from bench.report.figures.curves import guidance_panels, metric_curve
from bench.report.figures.style import MARKERS
from bench.report.looks import CLASSES, RULE_MARKS, RULES, line_looks, method_looks
from bench.report.numbers.frame import prepare
from bench.report.numbers.names import METHODS
from bench.report.pages.explorer import explorer
from tests.bench.report.factory import demo, digits, row, value

PAGES = files("bench.report.pages")
# G. M. Machado, M. M. Oliveira, L. A. F. Fernandes: A Physiologically-based Model for Simulation of
# Color Vision Deficiency, IEEE TVCG 15 (6), 2009: severity 1, for linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
APART = 10.0
"""CIEDE2000 between any two built-in methods: a just noticeable difference is about 1."""
MAIN = ("oracle", "edm", "mg", "gft", "ct", "igct", "mg-ct", "guided-cd", "meanflow")
MAIN_APART = 13.0
NEXT_APART = 9.4
"""The same with the colours of further methods."""
PALE_APART = 11.0
"""Between rules, and between classes."""


def linear(colours):
    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def seen(colours, vision):
    """CIELAB of colours as a vision sees them."""
    rgb = np.clip(linear(colours) @ VISION[vision].T, 0, 1)
    return rgb2lab(np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055))


def contrast(colours, page):
    """Of WCAG 2."""
    one, other = (linear(c) @ [0.2126, 0.7152, 0.0722] + 0.05 for c in (colours, [page]))
    return np.maximum(one, other) / np.minimum(one, other)


def nearest(colours, vision):
    lab = seen(colours, vision)
    return min(float(deltaE_ciede2000(a, b)) for a, b in combinations(lab, 2))


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("shade", ["colour", "dark"])
def test_methods_differ_in_colour_for_every_vision(vision, shade):
    known = method_looks(["a", "b", "c"])
    colours = [getattr(look, shade) for look in known.values()]
    assert nearest([getattr(known[name], shade) for name in MAIN], vision) >= MAIN_APART
    assert nearest(colours[: len(METHODS)], vision) >= APART
    assert nearest(colours, vision) >= NEXT_APART


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("which", [0, 1])
def test_rules_and_classes_differ_in_colour_for_every_vision(vision, which):
    assert nearest([pair[which] for pair in RULES], vision) >= PALE_APART
    assert nearest([pair[which] for pair in CLASSES], vision) >= PALE_APART


def test_simulation_makes_red_and_green_alike():
    """Otherwise the tests above could not fail."""
    red, green = "#b04a3a", "#5d7a2e"
    assert nearest([red, green], "normal") > 40
    assert nearest([red, green], "deuteranopia") < 10


def test_colours_stand_out_on_the_page():
    white, black = re.findall(r"--page: (#\w+)", PAGES.joinpath("page.css").read_text("utf-8"))[:2]
    black = {4: black, 7: black}[len(black)]
    known = method_looks(["a", "b", "c"]).values()
    pairs = [*((look.colour, look.dark) for look in known), *RULES, *CLASSES]
    assert white == "#fff"
    assert contrast([pair[0] for pair in pairs], "#ffffff").min() >= 3
    assert contrast([pair[1] for pair in pairs], black).min() >= 3


def test_methods_differ_without_colour():
    known = list(method_looks([f"plugin{i}" for i in range(9)]).values())
    assert len({look.mark for look in known[: len(METHODS)]}) == len(METHODS)
    assert len({look.dashes for look in known[: len(METHODS)]}) == len(METHODS)
    assert len({(look.mark, look.dashes) for look in known}) == len(known)


def test_looks_are_fixed_for_known_methods_and_ordered_for_others():
    alone, crowd = method_looks(["igct"]), method_looks(["zeta", "alpha", "igct", "edm"])
    assert alone["igct"] == crowd["igct"]
    assert crowd["alpha"] == method_looks(["alpha"])["alpha"]
    assert crowd["zeta"] == method_looks(["zeta", "beta"])["zeta"]
    assert crowd["zeta"] != crowd["alpha"]


def ruled(*rules, methods=("edm", "oracle")):
    rows = [
        row("digits", m, 4.0, value("fd", 1.0), rule=rule, key=f"{m}{rule}")
        for m in methods
        for rule in rules
    ]
    return line_looks(prepare(rows))


def test_looks_of_rules_follow_from_names_and_differ():
    many = [f"rule{i}" for i in range(18)]
    found = {(s.method, s.rule): look for s, look in ruled(*many).items()}
    assert len({(look.colour, look.mark) for look in found.values()}) == 36
    for rule in many:
        assert found["edm", rule].colour == found["oracle", rule].colour
        assert found["edm", rule].dashes == method_looks(())["edm"].dashes
    (alone,) = ruled("rule3", methods=("edm",)).values()
    assert alone.colour == found["edm", "rule3"].colour
    assert {look.colour for look in found.values()} <= {pair[0] for pair in RULES}
    assert not {pair[0] for pair in RULES} & {look.colour for look in method_looks(()).values()}


def test_steps_differ_in_size_only():
    rows = [row("digits", "igct", 2.0, value("fd", 1.0), steps=k, key=str(k)) for k in (1, 2)]
    one, two = line_looks(prepare(rows)).values()
    assert (one.size, two.size) == (0, 1)
    assert (one.colour, one.mark, one.dashes) == (two.colour, two.mark, two.dashes)
    data = prepare(rows)
    (column,) = data.columns
    thin, thick = metric_curve(data, column).axes[0].lines
    assert thin.get_markersize() < thick.get_markersize()
    assert thin.get_linewidth() < thick.get_linewidth()
    assert thin.get_fillstyle() == thick.get_fillstyle() == "full"


def test_figures_and_page_share_their_looks():
    data = prepare(digits())
    page = {
        line["label"]: line["look"] for line in json.loads(explorer(data, {}))["sets"][0]["lines"]
    }
    (column,) = [c for c in data.columns if c.metric == "fd"]
    figure = guidance_panels(data, [column], data.plain("digits"))
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    assert len(page) == 3
    for label, (colour, _, mark, dashes, _) in page.items():
        assert drawn[label].get_color() == colour
        assert drawn[label].get_marker() == MARKERS[mark]
        assert (drawn[label].get_linestyle() == "--") == bool(dashes)


def test_page_draws_every_marker():
    script = PAGES.joinpath("script", "charts.js").read_text("utf-8")
    known = set(re.findall(r'case "(\w+)"', script))
    assert (
        known | {"circle"} == set(MARKERS) >= {look.mark for look in method_looks("abc").values()}
    )
    assert set(RULE_MARKS) <= set(MARKERS)


def test_every_line_has_a_look():
    data = prepare(demo())
    lines = {s for dataset in data.datasets for s in data.series(dataset)}
    assert set(line_looks(data)) == lines
    assert set(method_looks(())) == set(METHODS)
