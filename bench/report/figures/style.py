"""The look of all figures: colour, marker and line per method; and how files are written."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bench.report.document import FileKind
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.names import FLOOR
from bench.system.errors import visible

WIDTH = 6.5  # inches: the text width of a US letter or A4 page
GREY = "#6b6b6b"
FLOOR_LINE: dict[str, Any] = {"color": GREY, "ls": "--"}
FLOOR_IN_PANEL: dict[str, Any] = {"color": GREY, "ls": ":"}
FLOOR_POINT: dict[str, Any] = {"color": GREY, "marker": "*", "ls": "none"}
DIVERGED: dict[str, Any] = {"marker": "X", "ls": "none"}
"""A line without a value because sampling diverged."""
FRONT, OFF_FRONT = "#303030", "#c4c4c4"
"""A front, and points of lines that are not on it."""
CFG_IN_PANEL: dict[str, Any] = {"color": "#3c3c3c", "ls": "--", "lw": 1.1}
OTHERS = "#d4d4d4"
"""In a panel of one rule: plain CFG, and the colour of the other rules."""
PUBLISHED = (
    ("x", "#8a8a8a"),
    ("+", "#a8a8a8"),
    ("1", "#707070"),
    ("2", "#b8b8b8"),
    ("|", "#989898"),
)
"""Marker and colour of published curves."""
TARGET, TILTED = "black", 1
"""Colour of the exact density, and palette index of the tilted density."""
TILTED_DASHES, TILTED_CONTOUR = (0, (3.0, 2.0)), "--"
SAMPLED, LEARNT = "o", "x"
"""Samples of the exact denoiser and of networks, as points in the plane."""
HATCHES, DOTS = ("/////", "\\\\\\\\\\", "....", "xxxx"), ("o", "^", "s", "D")
"""Of classes: in bars, and as points."""
RINGS = {1: "-", 3: "--"}
"""Around modes, by their radius in standard deviations."""

LineStyle = str | tuple[int, tuple[float, ...]]

# Method: index in seaborn's "colorblind" palette, marker, line.
_KNOWN: Mapping[str, tuple[int, str, LineStyle]] = {
    "oracle": (4, "D", ":"),
    "edm": (0, "o", "-"),
    "ct": (2, "s", "-."),
    "igct": (3, "^", (0, (6.0, 1.5))),
    "guided-cd": (9, "v", (0, (3.0, 1.0, 1.0, 1.0))),
    "mg-ct": (6, "h", (0, (6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0))),
    "mg": (1, "P", (0, (5.0, 1.0, 1.0, 1.0, 1.0, 1.0))),
    "gft": (5, "X", (0, (1.0, 3.0))),
    "meanflow": (2, "*", (0, (1.0, 1.0))),  # ct has one scale
}
# The floor and published curves have the palette's grey; its yellow is too pale on white. No colour
# is left, so plugins share those of mg and gft, with other markers and lines.
_NEXT_COLOURS = (1, 5)
_NEXT_MARKERS = ("p", "<", ">")
_NEXT_LINES: tuple[LineStyle, ...] = (
    (0, (8.0, 2.0, 1.0, 2.0)),
    (0, (2.0, 1.5)),
    (0, (3.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
    "-",
)
# Rules: seaborn's "colorblind" palette without its grey and its pale yellow and pink.
_RULE_COLOURS = (0, 1, 2, 3, 4, 5, 9)
_RULE_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
_FILLS = ("full", "none", "left", "bottom", "right", "top")

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e2e2",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,
    "savefig.dpi": 160,
}


_UNDATED: Mapping[FileKind, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}


@dataclass(frozen=True)
class MethodStyle:
    """Colour, marker and line of one method; marker and line differ in greyscale too."""

    color: str
    marker: str
    linestyle: LineStyle


@cache
def palette() -> list[str]:
    """Seaborn's "colorblind" palette as hex strings."""
    return [str(colour) for colour in sns.color_palette("colorblind").as_hex()]


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """The style of every method: fixed for known methods, by order of name for others."""
    colours = palette()
    styles = {FLOOR: MethodStyle(GREY, "*", "--")}
    plugins = sorted(set(methods) - set(_KNOWN) - {FLOOR})
    for name, (colour, marker, line) in _KNOWN.items():
        styles[name] = MethodStyle(colours[colour], marker, line)
    for i, name in enumerate(plugins):
        styles[name] = MethodStyle(
            colours[_NEXT_COLOURS[i % len(_NEXT_COLOURS)]],
            _NEXT_MARKERS[i % len(_NEXT_MARKERS)],
            _NEXT_LINES[i % len(_NEXT_LINES)],
        )
    return styles


def rule_styles(pairs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], MethodStyle]:
    """The style of every (method, rule): a colour by the rule, a marker by both.

    Both follow from names, so that a rule looks the same in all reports. If a marker is taken in
    its colour, the next free one is used, in the order of names.
    """
    colours = palette()
    styles: dict[tuple[str, str], MethodStyle] = {}
    taken: set[tuple[int, int]] = set()
    for method, rule in sorted(set(pairs)):
        colour = _RULE_COLOURS[_number(rule) % len(_RULE_COLOURS)]
        marker = _number(f"{method} + {rule}") % len(_RULE_MARKERS)
        for _ in _RULE_MARKERS:
            if (colour, marker) not in taken:
                break
            marker = (marker + 1) % len(_RULE_MARKERS)
        taken.add((colour, marker))
        styles[method, rule] = MethodStyle(colours[colour], _RULE_MARKERS[marker], "-")
    return styles


def line_styles(data: Data) -> dict[Series, MethodStyle]:
    """The style of every line: of its rule or, under CFG or without a rule, of its method."""
    lines = [s for dataset in data.datasets for s in data.series(dataset)]
    methods = method_styles(data.methods)
    rules = rule_styles((s.method, s.rule) for s in lines if s.rule)
    return {
        s: rules[s.method, s.rule] if s.rule else _varied(methods[s.method], data.variant(s))
        for s in lines
    }


def _varied(style: MethodStyle, variant: int) -> MethodStyle:
    """The style with another marker for further numbers of steps or runs of a method."""
    if variant == 0:
        return style
    others = [marker for marker in _RULE_MARKERS if marker != style.marker]
    return replace(style, marker=others[(2 * variant) % len(others)])


def _number(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def marker_fill(variant: int) -> Any:
    """How a marker is filled: differs between step counts and runs of one method."""
    return _FILLS[variant % len(_FILLS)]


def plain(text: str) -> str:
    """Untrusted text, escaped so that matplotlib shows it verbatim.

    A dollar sign would start mathematics, a leading underscore would hide a legend entry, and a
    control character would be printed in a warning.
    """
    escaped = visible(text).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


@contextmanager
def look() -> Iterator[None]:
    """Draw and save under the same settings, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure on an Agg canvas; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure, kind: FileKind = "png") -> bytes:
    """The figure as a file without dates: the same figure gives the same bytes."""
    engine = figure.get_layout_engine()
    if engine is not None:
        # Saving would compute the layout twice, which takes as long as drawing.
        figure.set_dpi(mpl.rcParams["savefig.dpi"])
        engine.execute(figure)
        figure.set_layout_engine(None)
    file = io.BytesIO()
    figure.savefig(file, format=kind, metadata=_UNDATED[kind])
    return file.getvalue()
