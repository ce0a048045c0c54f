"""Published numbers, drawn in grey behind our own if they measure the same thing."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report.numbers.columns import Column
from bench.system.errors import UserError
from bench.system.files import read_whole

# "fid_inception_n50000", "precision_vgg16_k3_n50000"
_NAME = re.compile(r"(?P<metric>[a-z]+)_(?P<extractor>[a-z0-9]+)(_k(?P<k>\d+))?_n(?P<n>\d+)")
_OPTIONAL = ("labels", "sampler", "params", "exact_place")
_FIELDS = ("source", "dataset", "method", "guidance", "nfe", "metric", "value", "note")


@dataclass(frozen=True)
class Published:
    """One published number; `k` is the neighbourhood size of precision and recall, or ''.

    `labels`: how classes were chosen (random, balanced); `params`: size of the network;
    `exact_place`: where in the source the number is. '' where that is not known.
    """

    source: str
    dataset: str
    method: str
    guidance: float
    nfe: int
    metric: str
    extractor: str
    k: str
    n: int
    value: float
    note: str
    labels: str = ""
    sampler: str = ""
    params: str = ""
    exact_place: str = ""


@dataclass(frozen=True)
class Curve:
    """Numbers of one method by guidance; `cited` has their sources and notes."""

    method: str
    source: str
    cited: tuple[str, ...]
    guidance: tuple[float, ...]
    values: tuple[float, ...]


def read_published(path: Path) -> tuple[Published, ...]:
    """The numbers in a CSV with the fields of results/published.csv."""
    try:
        text = read_whole(path).decode("utf-8")
    except OSError as error:
        raise UserError(f"Cannot read published numbers from {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a table of published numbers: {error}.") from None
    try:
        records = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        return tuple(_parse(record) for record in records)
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(
            f"{path} is not a table of published numbers with the fields {', '.join(_FIELDS)} "
            f"and metrics such as 'fid_inception_n50000': {str(error)[:200]}."
        ) from error


def _parse(record: dict[str, str]) -> Published:
    name = _NAME.fullmatch(record["metric"])
    if name is None:
        raise ValueError(f"metric {record['metric']!r}")
    if not all(math.isfinite(float(record[field])) for field in ("guidance", "value")):
        raise ValueError(f"guidance {record['guidance']!r}, value {record['value']!r}")
    return Published(
        **{field: record[field] for field in ("source", "dataset", "method", "note")},
        guidance=float(record["guidance"]),
        nfe=int(record["nfe"]),
        metric=name["metric"],
        extractor=name["extractor"],
        k=name["k"] or "",
        n=int(name["n"]),
        value=float(record["value"]),
        **{field: record.get(field) or "" for field in _OPTIONAL},
    )


def comparable(number: Published, column: Column) -> bool:
    """Whether a published number measures what a column does: same data, metric, extractor, n."""
    # Papers call the Frechet distance FID, for any extractor.
    metric = column.about.published_as or column.metric
    # A metric without a neighbourhood size in its name uses the usual 3.
    names = {number.metric} if number.k in ("", "3") else set()
    names |= {f"{number.metric}_k{number.k}"} if number.k else set()
    same = (number.dataset, number.extractor, number.n)
    return metric in names and same == (column.dataset, column.extractor, column.n)


def curves(numbers: tuple[Published, ...], column: Column) -> tuple[Curve, ...]:
    """The published curves that may be drawn with a column.

    A curve has the numbers of one method in one paper. If a paper has several numbers at a guidance
    scale, the curves are split by the place in the paper, then by NFE.
    """
    found = [number for number in numbers if comparable(number, column)]
    out: list[Curve] = []
    for method, paper in sorted({(p.method, _paper(p)) for p in found}):
        points = [p for p in found if (p.method, _paper(p)) == (method, paper)]
        if _single(points):
            out.append(_curve(method, paper, points))
            continue
        for source in sorted({p.source for p in points}):
            own = [p for p in points if p.source == source]
            if _single(own):
                out.append(_curve(method, source, own))
                continue
            for nfe in sorted({p.nfe for p in own}):
                some = [p for p in own if p.nfe == nfe]
                out.append(_curve(f"{method}, NFE {nfe}", source, some))
    return tuple(out)


def _paper(point: Published) -> str:
    """The source without the place in the paper, which is in brackets."""
    return re.sub(r"\s*\(.*", "", point.source)


def _single(points: list[Published]) -> bool:
    return len({p.guidance for p in points}) == len(points)


def legend_names(found: Sequence[Curve]) -> list[str]:
    """A name for each curve, with its source if several have the same method."""
    short = [f"{c.method} (published)" for c in found]
    full = [f"{c.method} ({c.source})" for c in found]
    return [s if short.count(s) == 1 else f for s, f in zip(short, full, strict=True)]


def _cited(point: Published) -> str:
    labels = f"{point.labels} labels" if point.labels else ""
    return ", ".join(part for part in (point.source, point.note, labels) if part)


def _curve(method: str, source: str, points: list[Published]) -> Curve:
    points = sorted(points, key=lambda p: p.guidance)
    cited = sorted({_cited(p) for p in points})
    scales, values = tuple(p.guidance for p in points), tuple(p.value for p in points)
    return Curve(method, source, tuple(cited), scales, values)
