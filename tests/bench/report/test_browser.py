"""The page in Chromium: what its script does, and what remains without it."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
from collections.abc import Iterator

import pytest

from bench.report import build
from bench.report.build import write_report
from bench.report.pages import html
from metrics.about import About
from tests.bench.report.factory import NO_GUIDANCE, TOO_HIGH, demo, images, points, row, value
from tests.long import mostly_long

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("no Chromium (apt-get install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api")

ODD = "</script><script>alert(1)</script>"
PAPER = 718
"""Width of an A4 page without its margins, in pixels of CSS."""
NAMES = tuple(str(k) for k in range(10))


def rows():
    """Images, densities and points; a rule; a name that tries to run a script."""
    found = demo()
    shown = images(9, names=NAMES)
    for g in (1.0, 4.0, 7.0):
        ruled = (value("fd", 2.0 + g, se=0.1), value("precision", 0.8), value("recall", 0.7))
        dose = value("dose", 3.0 * g, label="Dose", about=About(strength=True))
        apg = {"rule": "apg", "preview": shown, "key": f"apg{g}"}
        found.append(row("digits", "edm", g, *ruled, dose, **apg))
        found.append(row("plane", "edm", g, value("w1", g), preview=points(g / 10)))
        found.append(row("=plane", ODD, g, value("w1", g, se=0.1), preview=points(g / 10)))
    found += [row("wide", "edm", float(g), value("w1", g + 0.5, se=0.1)) for g in range(1, 30)]
    return found


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Write the report with a script; the figures are small."""

    def one(script=None):
        with pytest.MonkeyPatch.context() as patch:
            png = base64.b64decode(images(1, count=1).png)
            patch.setattr(build, "draw", lambda plan, kinds: {"png": png})
            if script is not None:
                patch.setattr(html, "script_text", lambda: script)
            out = tmp_path_factory.mktemp("report")
            return write_report(rows(), out).page.as_uri()

    return one


@pytest.fixture(scope="module")
def report(write):
    return write()


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as found:
        browser = found.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium) -> Iterator:
    """Open a page; in the end no error was printed and nothing outside was asked for."""
    contexts, wrong = [], []

    def one(address, **options):
        context = chromium.new_context(**{"viewport": {"width": 1400, "height": 900}, **options})
        contexts.append(context)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append("dialog"))
        page.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url),
        )
        page.goto(address)
        return page

    yield one
    for context in contexts:
        context.close()
    assert wrong == []


def at(page):
    return page.locator("#g").inner_text()


def cursor(page):
    return page.locator("#chart-0 .cursor").get_attribute("d")


def strip(page, line="edm-18"):
    return page.locator(f"[data-line='{line}'] img").get_attribute("src")


def table(page):
    return page.locator("#table").inner_text()


def step(page, key="ArrowRight"):
    page.locator("#scale").press(key)


def check_cursor(page):
    before, rings = cursor(page), page.locator("#chart-0 .ring").first.get_attribute("d")
    step(page)
    assert cursor(page) != before
    assert page.locator("#chart-0 .ring").first.get_attribute("d") != rings


def check_pictures(page):
    before = strip(page)
    step(page)
    assert strip(page) != before


def check_hash(page):
    step(page)
    g = at(page).removeprefix("g = ")
    assert re.search(rf"[#&]g={g}(&|$)", page.evaluate("location.hash"))


CHECKS = {"cursor": check_cursor, "pictures": check_pictures, "hash": check_hash}
BREAKS = {
    "cursor": ("  moveCursors();\n", "  if (!state.at) moveCursors();\n"),
    "pictures": ("const place = line.cells[state.at].p;", "const place = line.cells[0].p;"),
    "hash": ("  writeHash();\n", ""),
}


def test_keys_move_cursor_pictures_table_and_address(visit, report):
    page = visit(f"{report}#data=digits")
    for check in CHECKS.values():
        check(page)
    assert at(page) == "g = 7"
    assert "digits, g = 7" in table(page)
    step(page, "End")
    assert at(page) == "g = 16"
    assert page.locator("#scale").get_attribute("aria-valuetext") == "g = 16"


@pytest.mark.parametrize("broken", BREAKS)
def test_a_broken_script_fails_its_check_and_no_other(visit, write, broken):
    old, new = BREAKS[broken]
    script = html.script_text()
    assert script.count(old) == 1
    page = visit(f"{write(script.replace(old, new))}#data=digits")
    for name, check in CHECKS.items():
        if name == broken:
            with pytest.raises(AssertionError):
                check(page)
        else:
            check(page)


def test_mouse_moves_slider_and_cursor(visit, report):
    page = visit(f"{report}#data=digits")
    before, known = table(page), cursor(page)
    slider = page.locator("#scale")
    box = slider.bounding_box()
    slider.click(position={"x": 0.6 * box["width"], "y": box["height"] / 2})
    assert at(page) in ("g = 7", "g = 10")
    assert table(page) != before
    assert cursor(page) != known
    chart = page.locator("#chart-0 svg")
    chart.click(position={"x": 60, "y": 80})
    assert at(page) == "g = 1"


def test_play_runs_through_the_scales_and_stops(visit, report):
    page = visit(f"{report}#data=digits")
    page.locator("#play").click()
    playwright.expect(page.locator("#g")).to_have_text("g = 4")
    page.locator("#play").click()
    stopped = at(page)
    page.wait_for_timeout(1200)
    assert at(page) == stopped


def test_address_restores_everything(visit, report):
    page = visit(report)
    page.locator("#data").select_option(label="digits")
    page.locator("#measure").select_option(label="Precision classifier @300 ↑")
    page.locator("#x").select_option("nfe")
    page.locator("#a").select_option("edm-18")
    page.locator("#b").select_option("igct-1")
    page.locator("#relative").check()
    page.locator(".pick summary").click()
    page.locator("#lines input[value='ct-1']").uncheck()
    step(page)
    kept = page.evaluate("location.href")
    other = visit(kept)
    for found in (page, other):
        assert found.evaluate("location.href") == kept
        assert found.locator("#relative").is_checked()
        assert found.locator("#x").input_value() == "nfe"
        assert not found.locator("[data-line='ct-1']").count()
        assert at(found) == "g = 2"
    assert table(page) == table(other)
    assert page.locator("#charts").inner_html() == other.locator("#charts").inner_html()
    # Any other address is harmless.
    for address in ("#data=gone&g=x", "#data=digits&g=x&lines=,&x=?&a=?&relative=1", "#s-digits"):
        assert at(visit(report + address)).startswith("g = ")


def test_reason_of_a_skip_is_shown(visit, report):
    page = visit(f"{report}#data=digits&g=4&lines=ct-1,igct-1")
    why = page.locator("[data-line='ct-1'] .why")
    assert why.inner_text() == f"g = 4: {NO_GUIDANCE}"
    assert NO_GUIDANCE in table(page)
    step(page, "End")
    assert TOO_HIGH in page.locator("[data-line='igct-1'] .why").inner_text()


def test_lines_are_picked_alone_by_method_and_by_rule(visit, report):
    page = visit(f"{report}#data=digits&g=4&lines=ct-1")
    page.locator(".pick summary").click()
    page.locator("#several button", has_text="apg").click()
    assert page.locator("#legend li").all_inner_texts() == ["ct, 1 step", "edm + apg, 18 steps"]
    page.locator("#several button", has_text="edm").click()
    assert page.locator("#count").inner_text() == "3 of 4"
    page.locator("#several button", has_text="edm").click()
    page.locator("#lines input[value='ct-1']").uncheck()
    assert page.locator("#charts .empty").count() == 4


def test_two_lines_are_compared(visit, report):
    page = visit(f"{report}#data=digits&g=4&a=edm-18&b=igct-1")
    difference = page.locator("#pair .difference figcaption")
    playwright.expect(difference).to_have_text("|A − B|, on average 0.0 of 255 grey levels")
    step(page)  # at g = 7 the dots of edm are brighter by 10
    playwright.expect(difference).not_to_contain_text(" 0.0 ")
    brightest = page.evaluate(
        "Math.max(...document.querySelector('canvas').getContext('2d')"
        ".getImageData(0, 0, 80, 8).data.filter((_, k) => k % 4 < 3))"
    )
    assert brightest == 10
    last = page.locator("#table tbody tr").last.inner_text()
    assert last.startswith("A − B: edm, 18 steps − igct, 1 step")
    page = visit(f"{report}#data=modes1d&g=4&a=edm-18&b=ct-1")
    assert "no samples" in page.locator("#pair .difference").inner_text()
    page = visit(f"{report}#data=modes1d&g=4&a=edm-18&b=igct-1")
    assert page.locator("#pair .difference .bars").count() == 4


def test_values_relative_to_cfg_are_those_of_the_table(visit, report):
    page = visit(f"{report}#data=digits&g=4&lines=edm-18,edm-18-apg&relative=1")
    lines = page.locator("#table tbody tr").all_inner_texts()
    assert "× 1" in lines[0] or "\t0\t" in lines[0]
    page.locator("#relative").uncheck()
    assert "relative" not in table(page)


def test_strengths_of_guidance_follow_it_as_axes(visit, report):
    page = visit(f"{report}#data=digits&relative=1")
    options = page.locator("#x option").all_inner_texts()
    assert options[:4] == ["guidance g", "Dose @300", "NFE", "time per image"]
    page.locator("#x").select_option(label="Dose @300")
    # A strength says where a point is, so it is not relative to another line.
    assert page.locator("#chart-0 figcaption").inner_text() == "FD / CFG ↓ against Dose"
    assert page.locator("#chart-0 .mark").count() == 3
    titles = page.locator("#chart-0 .tick.middle").all_text_contents()
    assert titles[-1] == "Dose"
    assert float(titles[-2]) > 10


def test_times_have_fitting_units(visit, report):
    page = visit(f"{report}#data=digits&x=s")
    ticks = page.locator("#chart-0 .tick.middle").all_text_contents()
    assert ticks[-1] == "time per image"
    assert all(re.fullmatch(r"[\d.]+ ms", tick) for tick in ticks[:-1])
    assert "18 ms" in table(page)
    page.locator("#copy-csv").click()
    copied = list(csv.reader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    assert copied[0][-2] == "s/image"
    assert copied[1][-2] == "0.018"


def test_seeds_are_thin_lines_and_rules_are_named_at_their_ends(visit, report):
    page = visit(f"{report}#data=modes1d&lines=edm-18,igct-1")
    assert page.locator("#chart-0 .seed").count() == 2
    page = visit(f"{report}#data=digits&lines=edm-18,edm-18-apg")
    assert page.locator("#chart-0 text.rule").all_text_contents() == ["apg"]


def test_tiles_have_their_classes_below(visit, report):
    page = visit(f"{report}#data=digits&lines=edm-18")
    assert page.locator("#pictures .names span").all_inner_texts() == list(NAMES)
    image, names = (page.locator(f"#pictures {name}").bounding_box() for name in ("img", ".names"))
    assert abs(image["width"] - names["width"]) < 1


def test_axes_and_measures_change_the_charts(visit, report):
    page = visit(f"{report}#data=digits&x=s")
    caption = page.locator("#chart-0 figcaption")
    assert not page.locator(".band").count()
    assert caption.inner_text() == "FD ↓ against time"
    page.locator("#x").select_option(label="Precision classifier @300")
    assert caption.inner_text() == "FD ↓ against Precision ↑"
    page.locator("#measure").select_option(label="RMS contrast @300")
    assert caption.inner_text() == "RMS contrast against Precision ↑"
    page.locator("#data").select_option(label="plane")
    assert page.locator("#pictures .dots").count() == 4
    assert page.locator("#charts figure").count() == 1


def test_table_is_copied_as_csv_and_latex(visit, report):
    page = visit(f"{report}#data=digits&g=4&lines=edm-18,ct-1,edm-18-apg")
    page.locator("#copy-csv").click()
    playwright.expect(page.locator("#said")).to_contain_text("CSV")
    head, *lines = csv.reader(io.StringIO(page.evaluate("navigator.clipboard.readText()")))
    fd = "FD classifier @300 ↓"
    assert head[:6] == ["data set", "g", "line", fd, f"{fd} low", f"{fd} high"]
    assert [line[2] for line in lines] == ["edm, 18 steps", "ct, 1 step", "edm + apg, 18 steps"]
    assert lines[1][-1] == f"g = 4: {NO_GUIDANCE}"
    assert {len(line) for line in lines} == {len(head)}
    assert lines[2][3] == "6"
    page.locator("#copy-latex").click()
    playwright.expect(page.locator("#said")).to_contain_text("LaTeX")
    text = page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("% digits, g = 4\n\\begin{tabular}{lr")
    assert r"FD classifier @300 $\downarrow$" in text
    assert r"edm + apg, 18 steps & 6.00\,{\scriptsize $\pm$ 0.10} &" in text
    page = visit(f"{report}#data=digits&g=7&a=igct-1&b=edm-18")
    page.locator("#copy-latex").click()
    playwright.expect(page.locator("#said")).to_contain_text("LaTeX")
    last = page.evaluate("navigator.clipboard.readText()").splitlines()[-3]
    assert last.startswith(r"A $-$ B: igct, 1 step $-$ edm, 18 steps & $-$36.1 &")
    page = visit(f"{report}#data=%3Dplane")
    page.locator("#copy-csv").click()
    playwright.expect(page.locator("#said")).to_contain_text("CSV")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert "'=plane" in copied
    page.locator("#copy-latex").click()
    playwright.expect(page.locator("#said")).to_contain_text("LaTeX")
    assert r"\textless{}/script\textgreater{}" in page.evaluate("navigator.clipboard.readText()")


def test_names_run_no_script(visit, report):
    page = visit(f"{report}#data=%3Dplane")
    assert f"{ODD}, 4 steps" in page.locator("#legend").inner_text()
    assert page.locator("script").count() == 2


def test_without_a_script_tables_and_pictures_stay(visit, report):
    page = visit(report, java_script_enabled=False)
    assert not page.locator("#explore").is_visible()
    part = page.locator("details", has_text="FD classifier @300").first
    part.locator("summary").first.click()
    assert part.locator("table").first.is_visible()
    assert part.locator("img").first.get_attribute("width") == "8"


@pytest.mark.parametrize("colours", mostly_long(["light", "dark"], ["dark"]))
def test_axe_finds_no_violation(visit, report, colours):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = visit(f"{report}#data=digits&g=4&a=edm-18&b=igct-1", color_scheme=colours)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    found = axe.run(page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"][:200]) for v in found] == []


@pytest.mark.parametrize("width", [1400, 1000, 390])
def test_page_is_as_wide_as_its_window(visit, report, width):
    page = visit(report, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#chart-0").bounding_box()["y"] < 800


def test_paper_has_everything(visit, report):
    page = visit(report, viewport={"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    assert not page.locator("#scale").is_visible()
    seen = page.evaluate(
        "[...document.querySelectorAll('.scroll td, .scroll th')].map((cell) => {"
        " const box = cell.getBoundingClientRect(); return [box.width > 0, box.right]; })"
    )
    assert all(shown for shown, _ in seen)
    assert max(right for _, right in seen) <= PAPER
    page.pdf(format="A4")
    assert not page.locator("details[open]").count()
