from __future__ import annotations

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.experiment.inversion_rows import EditGrid, InversionRow, Latents, Pair, Score, Share
from bench.report.build import write_report
from bench.report.document import DASH, Text
from bench.report.figures.figures import plan_grids
from bench.report.figures.grids import NARROWEST, grid_figure
from bench.report.figures.style import look
from bench.report.numbers.inversions import inversion_summary, prepare_inversions
from bench.report.options import ReportOptions
from bench.report.pages.inversions import inversion_tables, with_error
from bench.system.errors import UserError
from tests.bench.report.factory import row, value
from tests.bench.report.test_report import Page

NO_LPIPS = "alexnet.pth is not in /weights"


def grid(rows=2, columns=("source", "latent", "reconstruction", "a")):
    pixels = np.zeros((8 * rows, 8 * len(columns)), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return EditGrid(
        png=base64.b64encode(buffer.getvalue()).decode(),
        columns=tuple(columns),
        rows=tuple("xy"[:rows]),
    )


def inversion(method="igct", guidance=1.0, **changes):
    """One row; MSE and edits by method."""
    run = f"digits-{method}-s{changes.get('train_seed', 0)}"
    good = method == "edm"
    defaults = {
        "status": "ok",
        "experiment": "demo",
        "dataset": "digits",
        "data_hash": "d" * 64,
        "method": method,
        "run": run,
        "train_seed": 0,
        "checkpoint": f"{run}-{'c' * 40}",
        "guidance": guidance,
        "n": 50,
        "reference": "digits/reference",
        "reference_hash": "f" * 64,
        "judge": "classifier",
        "judge_hash": "e" * 64,
        "authors_batch": 128,
        "inversion_nfe": 34 if good else 1,
        "reconstruction_nfe": 35 if good else 1,
        "edit_nfe": (35 if guidance == 1 else 70) if good else 1,
        "inversion_seconds": 0.01,
        "edit_seconds": 0.02 if guidance == 1 else 0.04,
        "scores": (
            Score(name="mse", label="MSE", value=0.001 if good else 0.023, se=0.0004),
            Score(name="psnr", label="PSNR, dB", value=30.0 if good else 22.99, se=0.16),
            Score(name="lpips", label="LPIPS", reason=NO_LPIPS),
            Score(name="ssim_batch", label="SSIM across a batch", value=0.97),
        ),
        "latents": Latents(
            sigma_max=80.0, mean=0.0, std=0.9, spread_of_means=0.1, spread_of_stds=0.2,
            skewness=0.3, excess_kurtosis=0.4, ks=0.05, neighbours=-0.01,
        ),
        "pairs": (Pair(source=0, target=1, n=450, right=440),),
        "edits": Share(right=440, n=450, low=0.96, high=0.987),
        "real": Share(right=49, n=50, low=0.89, high=0.996),
        "preview": grid(),
        "created": "2025-01-02T03:04:05+00:00",
    }  # fmt: skip
    full = {**defaults, **changes}
    full.setdefault("key", f"{full['run']}/{full['checkpoint']}/{guidance}/{full['n']}")
    return InversionRow(**full)


def skipped(method="ct", guidance=1.0, reason="ct maps no image to a latent"):
    bare = {"scores": (), "latents": None, "pairs": (), "edits": None, "real": None}
    return inversion(method, guidance, status="skip", reason=reason, preview=None, **bare)


def demo():
    edm = [inversion("edm", g) for g in (1.0, 7.0, 13.0)]
    return [*edm, *(inversion("igct", g) for g in (1.0, 7.0)), skipped(),
            skipped("igct", 13.0, "trained for guidance 1 to 7, not 13")]  # fmt: skip


def cells_alone():
    """Cells whose report has one figure."""
    return [row("modes1d", "edm", g, value("w1", g)) for g in (1.0, 4.0)]


def few():
    """Inversions whose section has one figure."""
    return [inversion("igct"), skipped()]


def tables(rows):
    found = inversion_tables(prepare_inversions(rows), "digits")
    return {table.title.split()[0]: table for table in found}


def cells(table, label):
    (line,) = [line for line in table.lines if line.label == label]
    return dict(zip(table.names, line.cells, strict=True))


def test_reconstruction_has_one_line_per_run_with_errors_and_the_best_in_bold():
    table = tables(demo())["Reconstruction"]
    assert [line.label for line in table.lines] == ["edm", "igct"]
    assert table.names == (
        *("NFE", "time/image", "MSE ↓", "PSNR, dB ↑"),
        "SSIM/batch (authors') ↑",
    )
    edm, igct = cells(table, "edm"), cells(table, "igct")
    assert edm["NFE"].text == "34 + 35"
    assert edm["MSE ↓"] == Text("0.0010 ± 0.0004", bold=True)
    assert igct["MSE ↓"] == Text("0.0230 ± 0.0004")
    assert edm["PSNR, dB ↑"].bold
    assert igct["PSNR, dB ↑"].text == "22.99 ± 0.16"
    assert igct["SSIM/batch (authors') ↑"].text == "0.9700"
    notes = " ".join(text for _, text in table.notes)
    assert f"all methods: LPIPS is not measured: {NO_LPIPS}." in notes
    assert "50 images" in notes
    assert "batches of 128" in notes


def test_edits_have_one_column_per_scale_a_ceiling_and_reasons():
    table = tables(demo())["Edits"]
    assert [line.label for line in table.lines] == [
        *("edm", "ct", "igct", "real images, unedited (ceiling)")
    ]
    edm = cells(table, "edm")
    assert edm["NFE"].text == "35–70"
    assert edm["time/image"].text == "20 ms–40 ms"
    assert edm["g = 7"].text == f"0.978 (0.960{DASH}0.987)"
    notes = dict(table.notes)
    assert notes[cells(table, "ct")["g = 1"].marks] == "skipped: ct maps no image to a latent"
    assert cells(table, "ct")["g = 7"].text == ""
    over = cells(table, "igct")["g = 13"]
    assert (over.text, notes[over.marks]) == (DASH, "skipped: trained for guidance 1 to 7, not 13")
    assert table.lines[-1].kind == "floor"
    assert {c.text for c in table.lines[-1].cells[2:]} == {f"0.980 (0.890{DASH}0.996)"}


def test_latents_are_compared_with_noise():
    table = tables(demo())["Latents"]
    assert cells(table, "edm")["std"].text == "0.900"
    noise = cells(table, "N(0, 1)")
    assert [noise[n].text for n in ("mean", "std", "std of the means", "std of the stds")] == [
        *("0.000", "1.000", f"{50**-0.5:.3f}", f"{100**-0.5:.3f}")
    ]


def test_each_run_of_a_method_has_its_own_label():
    rows = [inversion("igct"), inversion("igct", train_seed=1), inversion("edm")]
    labels = [line.label for line in tables(rows)["Reconstruction"].lines]
    assert labels == ["edm", "igct [digits-igct-s0]", "igct [digits-igct-s1]"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"n": 40}, "number of images is 50 for run digits-edm-s0 and 40 for run digits-igct-s0"),
        ({"judge_hash": "x" * 64}, "judge hash is"),
        ({"judge": "other"}, "judge is 'classifier'"),
        ({"data_hash": "x" * 64}, "data hash is"),
        ({"reference_hash": "x" * 64}, "hash of the images is"),
        ({"authors_batch": 64}, "images a batch is 128"),
    ],
)
def test_rows_that_are_not_comparable_are_refused(changes, named, tmp_path):
    rows = [inversion("edm"), inversion("igct", **changes)]
    with pytest.raises(UserError, match=re.escape(named)):
        prepare_inversions(rows)
    with pytest.raises(UserError):
        write_report(cells_alone(), tmp_path / "r", ReportOptions(inversions=rows))
    assert not (tmp_path / "r").exists()
    # Another data set has a table of its own.
    other = inversion("igct", **changes, dataset="photos")
    assert prepare_inversions([inversion("edm"), other]).datasets == ("digits", "photos")


def test_newest_row_of_the_newest_weights_counts():
    old = inversion("igct", checkpoint="old", created="2024-01-01T00:00:00Z")
    few = inversion("igct", n=20, created="2024-06-01T00:00:00Z")
    failed = inversion("igct", status="failed", created="2026-01-01T00:00:00Z", key="failed")
    found = prepare_inversions([old, few, failed, inversion("igct")])
    assert [(r.status, r.n) for r in found.rows] == [("ok", 50)]
    assert found.left_out == 3
    # A sweep without inversions has seen newer weights.
    cell = row("digits", "igct", 1.0, checkpoint="new", created="2026-01-01T00:00:00Z")
    assert prepare_inversions([inversion("igct")], [cell]).rows == ()


def test_figures_are_of_the_lowest_and_the_highest_scale():
    names = [plan.name for plan in plan_grids(prepare_inversions(demo()))]
    assert names == [
        *("digits-edits-edm-g1", "digits-edits-edm-g13"),
        *("digits-edits-igct-g1", "digits-edits-igct-g7"),
    ]
    one = [plan.name for plan in plan_grids(prepare_inversions([inversion("igct", 4.0)]))]
    assert one == ["digits-edits-igct-g4"]


def test_grid_names_rows_and_columns():
    with look():
        figure = grid_figure(grid(columns=("source", "$x$", "_c")), "a $ title")
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["source", r"\$x\$", " _c"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["x", "y"]
    assert axes.get_title(loc="left") == r"a \$ title"
    assert figure.get_size_inches()[0] == NARROWEST
    wrong = grid().model_copy(update={"rows": ("x", "y", "z")})
    with look(), pytest.raises(ValueError, match="32 x 16 pixels are not a grid of tiles"):
        grid_figure(wrong, "t")


def test_summary_has_one_line_per_row():
    frame = inversion_summary(prepare_inversions(demo()))
    assert len(frame) == 7
    edm = frame[(frame.method == "edm") & (frame.guidance == 7)].iloc[0]
    assert (edm.mse, edm.mse_se, edm.edit_nfe) == (0.001, 0.0004, 70)
    assert (edm.edits_right, edm.edits_n, edm.edits_low) == (440, 450, 0.96)
    assert edm.latent_std == 0.9
    assert frame[frame.status == "skip"].mse.isna().all()


@pytest.mark.usefixtures("empty_figures")
def test_inversions_add_a_section_and_change_nothing_else(tmp_path):
    plain = write_report(cells_alone(), tmp_path / "plain")
    both = write_report(cells_alone(), tmp_path / "both", ReportOptions(inversions=few()))
    assert not list((tmp_path / "plain").glob("inversions.csv"))
    assert both.summary.read_bytes() == plain.summary.read_bytes()
    for name in ("markdown", "tex"):
        before, after = getattr(plain, name).read_bytes(), getattr(both, name).read_bytes()
        assert after.startswith(before)
        assert len(after) > len(before)
    page = both.page.read_text(encoding="utf-8")
    page = re.sub('<li><a href="#s-inversion-and-editing-.*\n', "", page)
    start = page.index('<h2 id="s-inversion-and-editing-')
    end = page.index("<h2", start + 1)
    assert page[:start] + page[end:] == plain.page.read_text(encoding="utf-8")
    # The section goes, with its files, once there are no rows of it.
    again = write_report(cells_alone(), tmp_path / "both")
    assert again.page.read_bytes() == plain.page.read_bytes()
    assert {p.name for p in (tmp_path / "both").rglob("*") if p.is_file()} == {
        p.name for p in (tmp_path / "plain").rglob("*") if p.is_file()
    }


def test_same_rows_give_the_same_bytes(tmp_path):
    one, two = (
        write_report(cells_alone(), tmp_path / name, ReportOptions(inversions=edits, pdf=True))
        for name, edits in (("one", few()), ("two", few()[::-1]))
    )
    for a in sorted((tmp_path / "one").rglob("*")):
        b = tmp_path / "two" / a.relative_to(tmp_path / "one")
        assert a.is_dir() or a.read_bytes() == b.read_bytes(), a.name
    assert len(one.figures) == len(two.figures) == 2 * (1 + 1)


def test_page_escapes_and_links_to_its_own_files(tmp_path):
    odd = skipped("<script>x", 1.0, "a < b & <script>")
    broken = inversion("edm", 13.0, preview=grid().model_copy(update={"rows": ("x",)}))
    rows = [inversion("igct"), odd, broken]
    report = write_report(cells_alone(), tmp_path, ReportOptions(inversions=rows))
    assert report.problems == (
        "Figure digits-edits-edm-g13 failed: ValueError: 32 x 16 pixels are not a grid of tiles",
    )
    page = Page(report.page.read_text(encoding="utf-8"))
    assert page.tags.count("script") == 2
    assert any("a < b & <script>" in word for word in page.words)
    assert {"inversions.csv", "edits.csv", "figures/digits-edits-igct-g1.png"} <= set(page.links)
    for link in page.links:
        assert (tmp_path / link).is_file()
    pairs = pd.read_csv(tmp_path / "edits.csv")
    assert len(pairs) == 2
    assert pairs.iloc[1][["method", "source", "target", "n", "right"]].tolist() == [
        *("igct", 0, 1, 450, 440)
    ]


@pytest.mark.parametrize(
    ("value", "se", "shown"),
    [
        (22.9876, 0.1609, "22.99 ± 0.16"),
        (0.023031, 0.00089, "0.0230 ± 0.0009"),
        (1.5065e-05, 7.41e-07, "1.51e-05 ± 7e-07"),
        (0.99998242, 7.65e-07, "0.9999824 ± 0.0000008"),
        (0.5, 0.0, "0.5 ± 0"),
        (0.0, 0.02, "0.00 ± 0.02"),
        (54.0, 12.3, "54 ± 12"),
    ],
)
def test_values_are_shown_to_the_digits_of_their_error(value, se, shown):
    assert with_error(value, se) == shown
