from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from bench.report.numbers.comparison import compare
from bench.report.numbers.frame import prepare
from bench.report.pages import strips
from bench.report.pages.explorer import MOST_PICKED, explorer
from tests.bench.report.factory import NO_GUIDANCE, demo, density, images, points, row, value


def explored(rows):
    data = prepare(rows)
    text = explorer(data, compare(data))
    assert "<" not in text
    return data, {found["name"]: found for found in json.loads(text)["sets"]} if text else {}


def line_of(found, label):
    return next(line for line in found["lines"] if line["label"] == label)


def test_cells_have_the_values_of_the_tables():
    data, found = explored(demo())
    for column in data.columns:
        one = found[column.dataset]
        m = [measure["title"] for measure in one["measures"]].index(column.title)
        for series in data.series(column.dataset):
            line = line_of(one, series.label)
            for g, cell in zip(one["scales"], line["cells"], strict=True):
                known = data.cell(column, series, g)
                shown = (cell.get("v") or {m: None})[m]
                if not known.found:
                    assert shown is None
                    continue
                assert shown[0] == pytest.approx(known.mean, rel=1e-5)
                low, high = known.band or (None, None)
                assert shown[1:3] == [
                    low and pytest.approx(low, rel=1e-5),
                    high and pytest.approx(high, rel=1e-5),
                ]
                assert cell["nfe"] == data.cost(series, g)[0]
    digits = found["digits"]
    assert line_of(digits, "ct, 1 step")["cells"][1] == {"why": NO_GUIDANCE}
    last = line_of(digits, "edm, 18 steps")["cells"][-1]
    assert last == {"why": "diverged: NaN at step 3 of 18"}
    assert digits["measures"][digits["lead"]]["label"] == "FD"
    assert digits["pairs"] == [[1, 2]]
    assert digits["lines"][digits["cfg"]]["label"] == "edm, 18 steps"


def test_pictures_are_the_stored_samples_and_shared_by_cells():
    _, found = explored(demo())
    digits, toy = found["digits"], found["modes1d"]
    shown = {p["png"] for p in digits["pictures"]}
    assert shown == {r.preview.png for r in demo() if r.dataset == "digits" and r.preview
                     and r.method != "real"}  # fmt: skip
    cells = line_of(digits, "igct, 1 step")["cells"]
    assert len({cell["p"] for cell in cells if "p" in cell}) == 1
    preview = next(r.preview for r in demo() if r.method == "oracle" and r.guidance == 4.0)
    place = line_of(toy, "oracle, 18 steps")["cells"][toy["scales"].index(4)]["p"]
    picture = toy["pictures"][place]
    for (start, *counts), whole in zip(picture["counts"], preview.counts, strict=True):
        assert sum(counts) == sum(whole)
        assert list(whole[start : start + len(counts)]) == counts
    assert toy["edges"][picture["edges"]] == pytest.approx(preview.edges)
    assert toy["targets"] == [{"means": [[2], [-2]], "std": 0.2}]


def test_points_are_on_a_grid_across_the_frame():
    preview = points(0.1)
    _, found = explored([row("plane", "edm", 1.0, value("w1", 1.0), preview=preview)])
    plane = found["plane"]
    low, high = np.reshape(plane["frame"], (2, 2))
    outside = 0
    for k, flat in enumerate(plane["pictures"][0]["points"]):
        shown = low + np.reshape(flat, (-1, 2)) / 999 * (high - low)
        known = np.array([xy for xy, c in zip(preview.xy, preview.labels, strict=True) if c == k])
        gaps = np.abs(shown[:, None] - known).max(axis=-1)
        assert gaps.min(axis=1).max() < 0.01
        outside += len(known) - len(shown)
    assert plane["pictures"][0]["note"] == f"{outside} outside"
    assert outside <= 8


def test_few_lines_are_picked_the_leaders_among_them():
    rows = [
        row("d", f"m{i}", g, value("fd", 1.0 + i + g, se=0.1)) for i in range(9) for g in (1.0, 2.0)
    ]
    _, found = explored(rows)
    picked = [line["label"] for line in found["d"]["lines"] if line["picked"]]
    assert len(picked) == MOST_PICKED
    assert "m0, 4 steps" in picked


def test_rules_know_their_line_under_cfg():
    rows = [row("d", "edm", g, value("fd", g), rule=r) for g in (1.0, 2.0) for r in ("", "apg")
            if g > 1 or not r]  # fmt: skip
    _, found = explored(rows)
    base, ruled = found["d"]["lines"]
    assert (base["base"], ruled["base"]) == (-1, 0)
    assert ruled["cells"][0]["v"] == base["cells"][0]["v"]


def test_lines_have_different_ids_and_looks_of_their_own():
    rows = [
        *(row("d", "a", 1.0, value("fd", 1.0), steps=n) for n in (1, 2)),
        row("d", "a-1", 1.0, value("fd", 1.0), steps=2),
        row("d", "a", 2.0, value("fd", 1.0), steps=2, rule="2"),
        row("d", "a-2", 1.0, value("fd", 1.0), steps=2),
    ]
    _, found = explored(rows)
    lines = found["d"]["lines"]
    assert len({line["id"] for line in lines}) == len(lines) == 5
    one, two = lines[:2]
    assert one["look"][:4] == two["look"][:4]
    assert one["look"][4] != two["look"][4]


def test_nothing_measured_needs_no_interactive_part():
    assert explored([row("d", "ct", 2.0, status="skip", reason="no")])[1] == {}


@pytest.mark.parametrize(
    "preview",
    [
        images(1).model_copy(update={"png": "not base64!"}),
        images(1).model_copy(update={"labels": (1, 2, 3)}),
        points(0.1).model_copy(update={"labels": (9,) * 400}),
        points(0.1).model_copy(update={"xy": ((1e300, 0.0),) * 400}),
        points(0.1).model_copy(update={"means": ()}),
        points(0.1).model_copy(update={"std": 0.0}),
        density(0.1).model_copy(update={"std": 1e-300}),
        density(0.1).model_copy(update={"edges": (0.0, 1.0)}),
    ],
)
def test_damaged_samples_are_left_out(preview):
    _, found = explored([row("d", "edm", 1.0, value("w1", 1.0), preview=preview)])
    (line,) = found["d"]["lines"]
    place = line["cells"][0].get("p")
    assert place is None or "why" in found["d"]["pictures"][place]


def noise(side, count, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side * count, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_large_strips_get_smaller_tiles_and_then_fewer(monkeypatch):
    found = {noise(96, 4, seed): 4 for seed in range(3)}
    assert strips.fit(found) == {png: (png, 4) for png in found}
    monkeypatch.setattr(strips, "MOST_BYTES", 250_000)
    smaller = strips.fit(found)
    assert {count for _, count in smaller.values()} == {4}
    sizes = [Image.open(io.BytesIO(base64.b64decode(png))).size for png, _ in smaller.values()]
    assert set(sizes) == {(256, 64)}
    monkeypatch.setattr(strips, "MOST_BYTES", 120_000)
    fewer = strips.fit(found)
    assert {count for _, count in fewer.values()} <= {1, 2}
    assert sum(len(png) for png, _ in fewer.values()) <= 120_000
