"""The section "Inversion and editing": reconstruction, edits recognised, latents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from bench.experiment.formatting import duration
from bench.experiment.inversion_rows import InversionRow, Score, Share
from bench.report.document import (
    DASH,
    EVERYWHERE,
    ON_SCREEN,
    Block,
    Figure,
    Heading,
    Inline,
    Line,
    Paragraph,
    Table,
    Text,
    link,
    paragraph,
)
from bench.report.numbers.inversions import Inversions
from bench.report.pages.cells import Footnotes, span
from bench.system.errors import counted

TITLE = "Inversion and editing"
ARROWS = {
    **{"mse": "↓", "psnr": "↑", "ssim": "↑", "ssim_gaussian": "↑", "lpips": "↓"},
    **{"psnr_batch": "↑", "ssim_batch": "↑"},
}
AUTHORS = {"psnr_batch": "PSNR/batch, dB (authors')", "ssim_batch": "SSIM/batch (authors')"}
"""Titles of the scores that the authors of iGCT compute per batch."""
Scores = dict[str, dict[str, Score]]
_LATENTS = {
    "mean": "mean",
    "std": "std",
    "spread_of_means": "std of the means",
    "spread_of_stds": "std of the stds",
    "skewness": "skewness",
    "excess_kurtosis": "excess kurtosis",
    "ks": "KS distance",
    "neighbours": "neighbours",
}


def inversion_section(data: Inversions, figures: Mapping[str, Sequence[Figure]]) -> Iterator[Block]:
    """The section with the figures of every data set."""
    yield Heading(TITLE, forms=EVERYWHERE)
    if data.left_out:
        text = f"{counted(data.left_out, 'row')} left out: of older weights, or measured again."
        yield Paragraph((text,), ON_SCREEN)
    yield paragraph(
        *("The same numbers: ", link("inversions.csv"), "; by pair of classes: "),
        *(link("edits.csv"), "."),
    )
    for dataset in data.datasets:
        yield from inversion_tables(data, dataset)
        yield from figures.get(dataset, ())
    judges = sorted({(r.dataset, r.judge, r.judge_hash) for r in data.rows if r.status == "ok"})
    for dataset, name, hashed in judges:
        yield paragraph(f"Judge of {dataset}: {name} ", Inline(hashed, "code"))


def inversion_tables(data: Inversions, dataset: str) -> list[Table]:
    """Reconstruction, edits and latents of a data set, without empty tables."""
    made = (make(data, dataset) for make in (_reconstruction, _edits, _latents))
    return [table for table in made if table is not None and table.lines]


def _first_ok(rows: Sequence[InversionRow]) -> InversionRow | None:
    return next((row for row in rows if row.status == "ok"), None)


def _reconstruction(data: Inversions, dataset: str) -> Table | None:
    """One line per run: reconstruction is at g = 1, so all rows of a run have the same."""
    found = {label: _first_ok(rows) for label, rows in data.runs(dataset).items()}
    lines = {label: row for label, row in found.items() if row is not None}
    if not lines:
        return None
    any_row = next(iter(lines.values()))
    by_name = {label: {s.name: s for s in row.scores} for label, row in lines.items()}
    shown = [name for name in ARROWS if any(_value(s, name) is not None for s in by_name.values())]
    notes = [
        f"{any_row.n} images of the reference split, balanced over the classes, inverted under "
        "their class and reconstructed at g = 1. ± is the standard error over images. MSE is of "
        "values in [-1, 1], the rest of uint8 images. NFE: inversion + reconstruction; time/image: "
        "inversion.",
        *_unmeasured(by_name),
        "The columns (authors') follow the evaluation of iGCT's authors: PSNR of the mean error of "
        "a batch, and SSIM with a window that also slides from image to image; mean over batches "
        f"of {any_row.authors_batch}. They are not comparable with the other columns.",
    ]
    exact = [f"{label} {row.exact}" for label, row in lines.items() if row.exact]
    if exact:
        notes.append(f"Exact in uint8, counted as one value off by one level: {', '.join(exact)}.")
    best = {name: _best(by_name, name) for name in shown}

    def line(label: str, row: InversionRow) -> Line:
        nfe = Text(f"{row.inversion_nfe} + {row.reconstruction_nfe}")
        scores = (Text(score_text(by_name[label].get(n)), bold=label in best[n]) for n in shown)
        return Line(label, (nfe, Text(duration(row.inversion_seconds)), *scores))

    return Table(
        title=f"Reconstruction of {dataset}",
        names=("NFE", "time/image", *(_title(by_name, name) for name in shown)),
        lines=tuple(line(label, row) for label, row in lines.items()),
        notes=tuple(("", text) for text in notes),
    )


def _value(own: dict[str, Score], name: str) -> float | None:
    return own[name].value if name in own else None


def _title(by_name: Scores, name: str) -> str:
    label = next(own[name].label for own in by_name.values() if name in own)
    return f"{AUTHORS.get(name, label)} {ARROWS[name]}"


def score_text(score: Score | None) -> str:
    """A score with its standard error, if it has one; a dash for none."""
    if score is None or score.value is None:
        return DASH
    if score.se is None:
        return f"{score.value:.4f}" if abs(score.value) < 10 else f"{score.value:.2f}"
    return with_error(score.value, score.se)


def with_error(value: float, se: float) -> str:
    """A value to the first digit of its standard error, to the second if the first is 1."""
    if se <= 0.0:
        return f"{value:.4g} ± 0"
    power = math.floor(math.log10(se))
    digits = -power + (se < 2 * 10.0**power)
    if 0.0 < abs(value) < 1e-3:
        shown = max(0, math.floor(math.log10(abs(value))) + digits)
        return f"{value:.{shown}e} ± {se:.0e}"
    digits = max(digits, 0)
    return f"{value:.{digits}f} ± {se:.{digits}f}"


def _best(by_name: Scores, name: str) -> set[str]:
    """Labels of the runs that show the best number of a column; none without rivals."""
    values = {k: v for k, own in by_name.items() if (v := _value(own, name)) is not None}
    if len(values) < 2:
        return set()
    top = (min if ARROWS[name] == "↓" else max)(values, key=lambda k: values[k])
    return {k for k in values if score_text(by_name[k][name]) == score_text(by_name[top][name])}


def _unmeasured(by_name: Scores) -> list[str]:
    """Why scores have no value, each reason once: for all runs or for some."""
    found: dict[tuple[str, str], list[str]] = {}
    for run, own in by_name.items():
        for score in own.values():
            if score.value is None:
                found.setdefault((score.label, score.reason), []).append(run)
    return [
        f"{'all methods' if len(runs) == len(by_name) else ', '.join(runs)}: {label} is not "
        f"measured: {reason}."
        for (label, reason), runs in found.items()
    ]


def _edits(data: Inversions, dataset: str) -> Table:
    """One line per run, one column per guidance scale."""
    runs = data.runs(dataset)
    scales = sorted({row.guidance for rows in runs.values() for row in rows})
    footnotes = Footnotes()

    def cell(row: InversionRow | None) -> Text:
        if row is None:
            return Text("")
        if row.status != "ok":
            return footnotes.events([row])
        return Text("" if row.edits is None else share_text(row.edits))

    lines = []
    for label, rows in runs.items():
        at = {row.guidance: row for row in rows}
        ok = [row for row in rows if row.status == "ok"]
        nfe = span([str(n) for n in sorted({r.edit_nfe for r in ok})])
        seconds = span([duration(s) for s in sorted(r.edit_seconds for r in ok)])
        lines.append(Line(label, (Text(nfe), Text(seconds), *(cell(at.get(g)) for g in scales))))
    first = _first_ok([row for rows in runs.values() for row in rows])
    notes = footnotes.notes
    if first is not None and first.real is not None and first.edits is not None:
        ceiling = (Text(DASH), Text(DASH), *[Text(share_text(first.real))] * len(scales))
        lines.append(Line("real images, unedited (ceiling)", ceiling, "floor"))
        general = (
            f"Share of {first.edits.n} edits of {first.n} images that the extractor "
            f"{first.judge} recognises as the class asked for; higher is better; with the 95% "
            "Wilson interval, as if edits were independent. NFE and time/image: one edit, without "
            "the inversion."
        )
        notes = (*notes, ("", general))
    return Table(
        title=f"Edits of {dataset} recognised as the class asked for ↑",
        names=("NFE", "time/image", *(f"g = {g:g}" for g in scales)),
        lines=tuple(lines),
        notes=notes,
    )


def share_text(share: Share) -> str:
    """A share with its interval: "0.250 (0.181–0.335)"."""
    return f"{share.value:.3f} ({share.low:.3f}{DASH}{share.high:.3f})"


def _latents(data: Inversions, dataset: str) -> Table:
    """One line per run: the inversion does not depend on the guidance of edits."""
    lines, n = [], 0
    for label, rows in data.runs(dataset).items():
        row = next((r for r in rows if r.status == "ok" and r.latents is not None), None)
        if row is not None and row.latents is not None:
            n = row.n
            values = [getattr(row.latents, name) for name in _LATENTS]
            lines.append(Line(label, tuple(Text(f"{v:.3f}") for v in values)))
    if lines:
        expected = {"std": 1.0, "spread_of_means": n**-0.5, "spread_of_stds": (2 * n) ** -0.5}
        noise = tuple(Text(f"{expected.get(name, 0.0):.3f}") for name in _LATENTS)
        lines.append(Line("N(0, 1)", noise, "floor"))
    note = (
        "A perfect inversion gives N(0, 1). The standard deviations of means and of standard "
        "deviations are over dimensions; KS: Kolmogorov-Smirnov distance of all values to "
        "N(0, 1), which falls to 0 with their number; neighbours: correlation of adjacent pixels."
    )
    return Table(
        title=f"Latents of {dataset} over the largest noise level",
        names=tuple(_LATENTS.values()),
        lines=tuple(lines),
        notes=(("", note),),
    )
