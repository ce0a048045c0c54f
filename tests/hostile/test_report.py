"""Untrusted rows: all report formats escape their text, and nothing is written elsewhere."""

import csv
import json
import re
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.experiment.inversion_rows import EditGrid, InversionRow, Pair, Score, Share
from bench.experiment.rows import Row
from bench.report import build
from bench.report.build import write_report
from bench.report.options import ReportOptions
from bench.report.pages import html
from bench.report.pages.tex import FIT
from bench.system.errors import UserError
from tests.bench.helpers import FIGURES
from tests.bench.report.factory import demo, images, row, value
from tests.hostile.values import BAD, MARKUP, broken

TEXTS = [text for text in BAD if isinstance(text, str) and 0 < len(text) < 500 and "\0" not in text]
KNOWN = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "h1",
    "h2",
    "h3",
    "p",
    "a",
    "dl",
    "dt",
    "dd",
    "div",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "sup",
    "small",
    "strong",
    "ul",
    "li",
    "details",
    "summary",
    "figure",
    "figcaption",
    "img",
    "code",
    "main",
    "nav",
    "caption",
}
EXPLORER = {
    "section", "label", "select", "input", "button", "datalist", "output", "span", "script",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "name", "content", "href", "class", "tabindex", "scope", "colspan", "src",
    "alt", "width", "height", "decoding", "http-equiv", "id", "role", "aria-label",
    "hidden", "type", "min", "max", "step", "list", "for",
}  # fmt: skip
LINK = re.compile(
    r"[a-z_]+\.csv|(tables|paper)\.(md|tex)|figures/[a-z0-9._-]+\.(png|pdf)|#s-[a-z0-9._-]*"
)


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: set[str] = set()
        self.scripts: list[str] = []
        self.ids: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.within = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        self.within = tag
        if tag == "script":
            self.scripts.append("")
        self.ids += [text for name, text in attrs if name == "id"]
        self.attributes |= {name for name, _ in attrs}
        self.links += [text for name, text in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        self.within = ""

    def handle_data(self, data):
        if self.within == "script":
            self.scripts[-1] += data
        else:
            self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"unexpected comment: {data!r}")


@pytest.fixture
def tables_only(monkeypatch):
    """Skip the drawing of figures: other tests draw them, and here their captions suffice."""
    monkeypatch.setattr(build, "draw", lambda plan, kinds: {})


def rows_of(text: str) -> list[Row]:
    """Rows in which every string starts with `text`."""
    named = {
         "experiment": f"{text}e", "data_hash": f"{text}h",
        "reference": f"{text}r", "reference_hash": f"{text}rh",
        "provenance": {f"{text}p": f"{text}v", "git": text}, "rule": f"{text}rule",
        "knobs": {f"{text}k": text}, "knobs_from": "suite", "unmeasured": {text: f"{text}why"},
    }  # fmt: skip
    names = {"run": f"{text}run", "checkpoint": f"{text}c", "key": f"{text}key"}
    found = []
    for i, method in enumerate((f"{text}m", "edm", "real")):
        for g in (1.0, 2.0):
            measured = [
                value(
                    "fd", 3.0 + i, label=f"{text}l", extractor=f"{text}x", se=0.1, se_method=text
                ),
                value(f"{text}metric", 1.0 + i, label=f"{text}L", direction="lower"),
            ]
            own = {k: f"{v}{method}{g}" for k, v in names.items()}
            preview = images(1, names=tuple(f"{text}{k}" for k in range(10)))
            found.append(row(f"{text}d", method, g, *measured, preview=preview, **(named | own)))
    for status in ("skip", "diverged", "failed"):
        own = {k: f"{v}{status}" for k, v in names.items()}
        more = named | own | {"status": status, "reason": f"{text}reason"}
        found.append(row(f"{text}d", f"{text}m", 3.0, **more))
    return found


def inversions_of(text: str) -> list[InversionRow]:
    share = Share(right=1, n=2, low=0.1, high=0.9)
    png = images(1, count=2).png
    return [
        InversionRow(
            key=f"{text}{g}", status=status, reason=f"{text}why", experiment=text, dataset=text,
            data_hash=text, method=text, run=text, train_seed=0, checkpoint=text, guidance=g, n=2,
            reference=text, reference_hash=text, judge=f"{text}j", judge_hash=text, authors_batch=2,
            scores=(Score(name=f"{text}s", label=f"{text}S", value=1.0, se=0.1),
                    Score(name="mse", label=text, reason=f"{text}R")),
            pairs=(Pair(source=0, target=1, n=2, right=1),), edits=share, real=share,
            preview=EditGrid(png=png, columns=(text, text), rows=(text,)),
            created="2025-01-02T03:04:05+00:00", provenance={text: text},
        )
        for g, status in ((1.0, "ok"), (2.0, "ok"), (3.0, "skip"))
    ]  # fmt: skip


def check_page(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert page.elements <= KNOWN | EXPLORER
    assert len(page.ids) == len(set(page.ids))
    if "script" in page.elements:
        cells, script = page.scripts
        assert json.loads(cells)["sets"]
        assert script == html.script_text()
    assert page.attributes <= ATTRIBUTES
    assert [link for link in page.links if not LINK.fullmatch(link)] == []
    return page


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_text_of_rows_is_escaped_on_the_page(tmp_path, tables_only, text):
    note = {f"{text}n": f"{text}o"}
    found = write_report(
        rows_of(text), tmp_path / "r", ReportOptions(note=note, inversions=inversions_of(text))
    )
    page = check_page(found.page)
    shown = re.sub(r"\s+", " ", page.text)
    for part in ("d", "m", "l", "L", "reason", "v", "j", "why", "o"):
        assert re.sub(r"\s+", " ", f"{text}{part}") in shown
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    for path in (tmp_path / "r").glob("*.md"):
        check_markdown(path.read_text(encoding="utf-8"))
    for path in (tmp_path / "r").glob("*.tex"):
        check_tex(path.read_text(encoding="utf-8"))
    check_csv(found.summary, text)
    check_csv(tmp_path / "r" / "inversions.csv", text)


def check_markdown(text: str) -> None:
    """Check that only the report's own elements occur and that no line starts with row text."""
    assert set(re.findall(r"<\s*/?\s*([a-z!?]+)", text, re.IGNORECASE)) <= {
        "sup",
        "details",
        "summary",
    }
    assert "\n# evil" not in text
    for line in text.splitlines():
        if line.startswith("|"):  # every table has at least two columns
            assert len(re.findall(r"(?<!\\)\|", line)) >= 3
    tables = re.split(r"\n\n", text)
    for table in (t for t in tables if t.startswith("|")):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def check_tex(text: str) -> None:
    """Check that only the report's own commands occur and that every brace is closed."""
    assert text.splitlines().count(FIT) == 1
    lines = [line for line in text.splitlines() if line != FIT]
    body = "\n".join(line for line in lines if not line.startswith("%"))
    own = (
        "begin|end|caption|centering|footnotesize|setlength|tabcolsep|toprule|midrule|bottomrule|"
        "par|smallskip|raggedright|textbf|textbackslash|textasciitilde|textasciicircum|textless|"
        "textgreater|textbar|downarrow|uparrow|pm|sigma|mu|geq|leq|times|textsubscript|dots|"
        "textsuperscript|itshape|multicolumn|label|fittable|sloppy|clearpage|dag|ddag|S|P|v"
    )
    commands = set(re.findall(r"\\([a-zA-Z]+)", body))
    assert commands <= set(own.split("|"))
    plain = re.sub(r"\\[&%$#_{}\\]", "", body)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert not re.search(r"[#%~]", plain)


def check_csv(path: Path, text: str) -> None:
    """Check that text is read back unchanged and that a spreadsheet sees no formula."""
    with path.open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert records
    cells = [cell for record in records for cell in record.values()]
    assert not [cell for cell in cells if cell[:1] in "=+@\t\r" and cell]
    assert any(text in cell for cell in cells)


def test_numbers_in_csv_stay_numbers(tmp_path, tables_only):
    found = write_report([row("d", "edm", -2.5, value("w1", -1e-3))], tmp_path)
    (record,) = csv.DictReader(found.summary.open(newline="", encoding="utf-8"))
    assert (record["guidance"], record["value"]) == ("-2.5", "-0.001")


@pytest.mark.parametrize("draw", FIGURES)
def test_figures_of_any_name_are_written_inside_the_report(tmp_path, monkeypatch, draw):
    monkeypatch.setattr(build, "draw", draw)
    text = f"{MARKUP}$\\frac{{../../evil"
    found = write_report(
        rows_of(text), tmp_path / "r", ReportOptions(inversions=inversions_of(text))
    )
    assert found.problems == ()
    assert found.figures
    assert all(path.parent == tmp_path / "r" / "figures" for path in found.figures)
    check_page(found.page)


ROWS = [json.loads(r.model_dump_json()) for r in demo() if r.dataset == "digits"]
BROKEN = st.sampled_from([ROWS[0], ROWS[5], ROWS[-1], json.loads(demo()[3].model_dump_json())])


@given(st.data())
def test_rows_of_any_values_are_refused_or_reported(data):
    content = data.draw(BROKEN.flatmap(broken))
    try:
        changed = Row.model_validate_json(content)
    except ValidationError:
        return
    others = [Row(**known) for known in ROWS if known["key"] != changed.key]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(build, "draw", lambda plan, kinds: {})
        place = Path(folder)
        try:
            found = write_report([changed, *others], place / "r")
        except UserError:
            return
        check_page(found.page)
        assert [path.name for path in place.iterdir()] == ["r"]


@settings(max_examples=max(4, settings().max_examples // 15))
@given(st.data())
def test_bad_previews_cost_only_their_figure(data):
    whole = json.loads(next(r for r in demo() if r.preview is not None).model_dump_json())
    other = next(r for r in ROWS if r["preview"])
    tree = data.draw(st.sampled_from([whole, other]))
    preview = json.loads(data.draw(broken(tree["preview"])))
    try:
        changed = Row.model_validate_json(json.dumps(tree | {"preview": preview}))
    except ValidationError:
        return
    with tempfile.TemporaryDirectory() as folder:
        found = write_report([changed], Path(folder) / "r")
        check_page(found.page)
        for problem in found.problems:
            assert "\n" not in problem
