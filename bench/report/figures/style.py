"""One look for every figure: a fixed colour, marker and line per method, and how files are made."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.system.errors import visible

FLOOR = "real"
WIDTH = 6.5  # inches: the text width of a US letter or A4 page
GREY = "#6b6b6b"

LineStyle = str | tuple[int, tuple[float, ...]]

_KNOWN: Mapping[str, tuple[int, str, LineStyle]] = {
    # method: index in seaborn's "colorblind" palette, marker, line
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
# The palette's grey is the floor's and the published curves', its yellow is too pale on white.
# No colour is left: plugins share those of mg and gft, and differ in marker and line.
_NEXT_COLOURS = (1, 5)
_NEXT_MARKERS = ("p", "<", ">")
_NEXT_LINES: tuple[LineStyle, ...] = (
    (0, (8.0, 2.0, 1.0, 2.0)),
    (0, (2.0, 1.5)),
    (0, (3.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
    "-",
)
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


@dataclass(frozen=True)
class MethodStyle:
    """Colour, marker and line of one method; told apart in grey by the last two."""

    color: str
    marker: str
    linestyle: LineStyle


def palette() -> list[str]:
    """Seaborn's "colorblind" palette as hex strings."""
    return [str(colour) for colour in sns.color_palette("colorblind").as_hex()]


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Return the style of every method: fixed for the known ones, by order of name for others."""
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


def method_order(method: str) -> tuple[int, str]:
    """Sort key of methods: the known ones first, then plugins by name, the floor last."""
    if method == FLOOR:
        return (len(_KNOWN) + 1, method)
    known = list(_KNOWN)
    return (known.index(method) if method in _KNOWN else len(known), method)


def marker_fill(variant: int) -> Any:
    """How a marker is filled: tells apart the step counts and runs of one method."""
    return _FILLS[variant % len(_FILLS)]


def plain(text: str) -> str:
    """Text from a row as matplotlib must be given it to show it verbatim.

    A dollar sign would start mathematics, a leading underscore would hide a legend entry; of a
    control character it would warn, with that character.
    """
    escaped = visible(text).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def plain_numbers(axis: Axis, values: Sequence[float]) -> None:
    """Numbers such as 0.01 and 200 in place of powers of ten, and 2 and 5 where decades are few."""
    if min(values) > 0 and max(values) < 1000 * min(values):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_formatter(NullFormatter())


@contextmanager
def look() -> Iterator[None]:
    """Draw and save under the same settings, whatever the user's matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure on an Agg canvas; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def render(figure: Figure) -> tuple[bytes, bytes]:
    """Return the figure as PNG and PDF without dates: the same figure, the same bytes."""
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    # The layout is found once: the second search would cost as much as the drawing.
    figure.set_layout_engine("none")
    figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return png.getvalue(), pdf.getvalue()
