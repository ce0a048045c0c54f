"""The look of all figures in matplotlib's terms, and how files are written."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path

from bench.report.document import FileKind
from bench.report.looks import Look
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
TARGET, TILTED = "black", "#c05a00"
"""Colours of the exact and the tilted density."""
TILTED_DASHES, TILTED_CONTOUR = (0, (3.0, 2.0)), "--"
SAMPLED, LEARNT = "o", "x"
"""Samples of the exact denoiser and of networks, as points in the plane."""
HATCHES, DOTS = ("/////", "\\\\\\\\\\", "....", "xxxx"), ("o", "^", "s", "D")
"""Of classes: in bars, and as points."""
RINGS = {1: "-", 3: "--"}
"""Around modes, by their radius in standard deviations."""

MARKERS: Mapping[str, str | Path] = {
    "diamond": "D", "circle": "o", "square": "s", "triangle": "^", "down": "v", "hexagon": "h",
    "plus": "P", "cross": "X", "star": "*", "pentagon": "p", "left": "<", "right": ">",
    "bow": Path([(-1.3, -1), (1.3, 1), (1.3, -1), (-1.3, 1), (-1.3, -1)], closed=True),
    "hourglass": Path([(-1, -1.3), (1, -1.3), (-1, 1.3), (1, 1.3), (-1, -1.3)], closed=True),
}  # fmt: skip
"""Of `bench.report.looks`, in matplotlib's terms."""
_SIZES = ((4.2, 1.4), (5.8, 1.9), (7.4, 2.4))
"""Points of markers and of lines, by the size of a look."""

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


def line_style(look: Look) -> dict[str, Any]:
    """How matplotlib draws a line with markers."""
    points, width = _SIZES[look.size % len(_SIZES)]
    return {
        **{"color": look.colour, "marker": MARKERS[look.mark], "ms": points, "lw": width},
        "ls": (0, look.dashes) if look.dashes else "-",
    }


def point_style(look: Look) -> dict[str, Any]:
    """How matplotlib draws single points."""
    style = line_style(look)
    return {**{key: style[key] for key in ("color", "marker", "ms")}, "ls": "none"}


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
        sns.set_theme(context="paper", style="ticks", rc=_RC)
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
