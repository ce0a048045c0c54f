"""The section "Inversion and editing": its figures, long tables, and the three forms of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import pandas as pd
from matplotlib.figure import Figure

from bench.experiment.inversion_rows import EditGrid, InversionRow
from bench.report.figures.figures import Plan
from bench.report.figures.grids import mosaic_figure, strip_pixels
from bench.report.numbers.inversions import Inversions
from bench.report.numbers.names import slug
from bench.report.pages.inversion_tables import make_sheets
from bench.report.pages.page import Picture, html_figure
from bench.report.pages.sheets import sheet_html, sheet_markdown, sheet_tex
from bench.report.pages.tables import md

TITLE = "Inversion and editing"
TILE = 0.7
"""Inches that a tile has at most."""


def plan_grids(data: Inversions) -> Iterator[Plan]:
    """One figure a run at its lowest and its highest guidance scale."""
    for dataset in data.datasets:
        for label, rows in data.runs(dataset).items():
            shown = [row for row in rows if row.status == "ok" and row.preview is not None]
            for row in dict.fromkeys([shown[0].key, shown[-1].key] if shown else []):
                found = next(r for r in shown if r.key == row)
                yield Plan(
                    slug(dataset, "edits", label, f"g{found.guidance:g}"),
                    dataset,
                    f"Edits of {dataset} by {label} at guidance g = {found.guidance:g} (1 = off). "
                    "One row per source, an image of the reference split: the source, its latent "
                    "(black to white over ±2.5 times the largest noise level), its reconstruction "
                    "at g = 1, and its edit to each other class; the own class is left empty. "
                    "Pixels are enlarged without smoothing.",
                    lambda row=found, label=label: edit_figure(row, label),  # type: ignore[misc]
                )


def edit_figure(row: InversionRow, label: str) -> Figure:
    """The grid of one row."""
    assert row.preview is not None
    return grid_figure(row.preview, f"{row.dataset}: {label}, g = {row.guidance:g}")


def grid_figure(grid: EditGrid, title: str) -> Figure:
    """A grid with the names of its columns on top and of its rows on the left."""
    pixels = strip_pixels(grid.png)
    side, count = pixels.shape[1] // len(grid.columns), len(grid.rows)
    if pixels.shape[:2] != (side * count, side * len(grid.columns)):
        raise ValueError(f"{pixels.shape[1]} x {pixels.shape[0]} pixels are no grid of tiles")
    rows = [
        pixels[i * side : (i + 1) * side]
        .reshape(side, len(grid.columns), side, 3)
        .swapaxes(0, 1)
        for i in range(count)
    ]  # fmt: skip
    return mosaic_figure(rows, grid.columns, grid.rows, title, largest=TILE)


def page_section(data: Inversions, pictures: Sequence[Picture]) -> str:
    """The section as HTML."""
    parts = [f"<h2>{TITLE}</h2>"]
    if data.left_out:
        parts.append(f"<p>{_left_out(data)}</p>")
    parts.append(
        '<p>The same numbers: <a href="inversions.csv">inversions.csv</a>; by pair of classes: '
        '<a href="edits.csv">edits.csv</a>.</p>'
    )
    for dataset in data.datasets:
        parts += [sheet_html(sheet) for sheet in make_sheets(data, dataset)]
        own = [p for p in pictures if p.plan.dataset == dataset]
        parts += [html_figure(picture) for picture in own]
    judges = sorted({(r.dataset, r.judge, r.judge_hash) for r in data.rows if r.status == "ok"})
    parts += [
        f"<p>Judge of {escape(dataset)}: {escape(name)} <code>{escape(hashed)}</code></p>"
        for dataset, name, hashed in judges
    ]
    return "\n".join(parts)


def markdown_section(data: Inversions) -> str:
    """The section as Markdown, to stand behind the other tables."""
    parts = [f"## {TITLE}"]
    if data.left_out:
        parts.append(_left_out(data))
    for dataset in data.datasets:
        parts += [sheet_markdown(sheet) for sheet in make_sheets(data, dataset)]
    return "\n".join(["", "\n\n".join(parts), ""])


def tex_section(data: Inversions) -> str:
    """The section as TeX, to stand behind the other tables."""
    sheets = [s for dataset in data.datasets for s in make_sheets(data, dataset)]
    return "\n".join([f"\n% {md(TITLE)}", *(sheet_tex(sheet) for sheet in sheets)]) + "\n"


def _left_out(data: Inversions) -> str:
    count = data.left_out
    return (
        f"{count} row{'' if count == 1 else 's'} left out: of older weights, or measured again "
        "since."
    )


_BASE = (
    *("experiment", "dataset", "method", "run", "train_seed", "guidance", "n", "status", "reason"),
    *("inversion_nfe", "reconstruction_nfe", "edit_nfe", "inversion_seconds", "edit_seconds"),
)
_LAST = ("authors_batch", "judge", "judge_hash", "reference", "reference_hash")


def inversion_summary(data: Inversions) -> pd.DataFrame:
    """One line a row: costs, every score with its standard error, edits, latents, hashes."""
    records: list[dict[str, object]] = []
    for row in data.rows:
        record: dict[str, object] = {name: getattr(row, name) for name in _BASE}
        for score in row.scores:
            record[score.name] = score.value
            if score.se is not None:
                record[f"{score.name}_se"] = score.se
        record["exact"] = row.exact if row.status == "ok" else None
        for name, share in (("edits", row.edits), ("real", row.real)):
            if share is not None:
                values = {"right": share.right, "n": share.n, "low": share.low, "high": share.high}
                record |= {f"{name}_{k}": v for k, v in values.items()}
        if row.latents is not None:
            record |= {f"latent_{k}": v for k, v in row.latents.model_dump().items()}
        record |= {name: getattr(row, name) for name in _LAST}
        records.append(record | {"checkpoint": row.checkpoint, "key": row.key})
    return pd.DataFrame.from_records(records)


def edit_summary(data: Inversions) -> pd.DataFrame:
    """One line a row and pair of classes."""
    names = ["experiment", "dataset", "method", "run", "guidance"]
    records = [
        {**{n: getattr(row, n) for n in names}, **pair.model_dump()}
        for row in data.rows
        for pair in row.pairs
    ]
    return pd.DataFrame.from_records(records, columns=[*names, "source", "target", "n", "right"])
