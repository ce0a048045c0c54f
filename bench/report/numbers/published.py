"""Published numbers, to draw in grey behind our own where they measure the same thing."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report.numbers.frame import Column
from bench.system.errors import UserError
from bench.system.files import read_whole

# "fid_inception_n50000", "precision_vgg16_k3_n50000"
_NAME = re.compile(r"(?P<metric>[a-z]+)_(?P<extractor>[a-z0-9]+)(_k(?P<k>\d+))?_n(?P<n>\d+)")
_FIELDS = ("source", "dataset", "method", "guidance", "nfe", "metric", "value", "note")


@dataclass(frozen=True)
class Published:
    """One published number; `k` is the neighbourhood size of precision and recall, or ''."""

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


@dataclass(frozen=True)
class Curve:
    """Numbers of one method by guidance; `cited` says where each was found and how."""

    method: str
    source: str
    cited: tuple[str, ...]
    guidance: tuple[float, ...]
    values: tuple[float, ...]


def read_published(path: Path) -> tuple[Published, ...]:
    """Return the numbers in a CSV with the fields of results/published.csv."""
    try:
        text = read_whole(path).decode("utf-8")
    except OSError as error:
        raise UserError(f"Cannot read published numbers from {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no table of published numbers: {error}.") from None
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
        source=record["source"],
        dataset=record["dataset"],
        method=record["method"],
        guidance=float(record["guidance"]),
        nfe=int(record["nfe"]),
        metric=name["metric"],
        extractor=name["extractor"],
        k=name["k"] or "",
        n=int(name["n"]),
        value=float(record["value"]),
        note=record["note"],
    )


def comparable(number: Published, column: Column) -> bool:
    """Whether a published number measures what a column does: same data, metric, extractor, n."""
    # A Frechet distance is published as FID, which is one of Inception's features.
    metric = column.about.published_as or column.metric
    # A metric that names no neighbourhood size uses the customary 3.
    names = {number.metric, f"{number.metric}_k{number.k}"} if number.k == "3" else {number.metric}
    if number.k not in ("", "3"):
        names = {f"{number.metric}_k{number.k}"}
    same = (number.dataset, number.extractor, number.n)
    return metric in names and same == (column.dataset, column.extractor, column.n)


def curves(numbers: tuple[Published, ...], column: Column) -> tuple[Curve, ...]:
    """Return the published curves that may be drawn beside a column.

    A curve is what one paper says of one method. Where that is more than one number at a guidance
    scale, places of the paper and then NFE make curves of their own.
    """
    found = [number for number in numbers if comparable(number, column)]
    out: list[Curve] = []
    for method, paper in sorted({(p.method, _paper(p.source)) for p in found}):
        points = [p for p in found if (p.method, _paper(p.source)) == (method, paper)]
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


def _paper(source: str) -> str:
    """Return a source without the place in it, which stands in brackets."""
    return re.sub(r"\s*\(.*", "", source)


def _single(points: list[Published]) -> bool:
    return len({p.guidance for p in points}) == len(points)


def legend_names(found: Sequence[Curve]) -> list[str]:
    """Name each curve, with its source where the method alone would not tell."""
    short = [f"{c.method} (published)" for c in found]
    full = [f"{c.method} ({c.source})" for c in found]
    return [s if short.count(s) == 1 else f for s, f in zip(short, full, strict=True)]


def _curve(method: str, source: str, points: list[Published]) -> Curve:
    points = sorted(points, key=lambda p: p.guidance)
    return Curve(
        method=method,
        source=source,
        cited=tuple(sorted({f"{p.source}, {p.note}".rstrip(", ") for p in points})),
        guidance=tuple(p.guidance for p in points),
        values=tuple(p.value for p in points),
    )
