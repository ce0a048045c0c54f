"""Columns: measures whose values may be compared, and what keeps values apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bench.experiment.rows import Row, Value
from bench.report.numbers.counting import age, shared_sampling
from bench.report.numbers.names import FLOOR
from bench.system.errors import UserError
from metrics.about import About, Scale
from metrics.base import ARROWS, Direction

MEASURED_BY = "code or settings of the measure"
Key = tuple[str, str, str, int]
RowValue = tuple[Row, Value]


@dataclass(frozen=True)
class Column:
    """One measure of one data set, for one column of a table or one axis."""

    dataset: str
    metric: str
    extractor: str
    label: str
    direction: Direction
    n: int
    version: int
    extractor_hash: str
    reference: str
    reference_hash: str
    reference_n: int
    about: About = field(compare=False)
    sampling: str = field(default="", compare=False)
    """Labels, sampler and grid of all its lines where they are not the usual ones."""

    @property
    def title(self) -> str:
        """The metric's name with extractor and n, such as "FD classifier @300"."""
        return " ".join(part for part in (self.label, self.extractor, f"@{self.n}") if part)

    @property
    def arrow(self) -> str:
        """The better direction, '' if there is none."""
        return ARROWS[self.direction]

    @property
    def scale(self) -> Scale:
        """Of its axis: a share goes down to 0, which a logarithm cannot show."""
        return "linear" if self.about.high is not None else self.about.scale

    @property
    def key(self) -> Key:
        """Equal for all values of this column."""
        return self.dataset, self.metric, self.extractor, self.n


def measured(row: Row) -> tuple[Value, ...]:
    """The values of a row; a row that is not "ok" has none that count."""
    return row.values if row.status == "ok" else ()


def values(rows: Iterable[Row]) -> Iterator[RowValue]:
    """The values of rows that count, each with its row."""
    return ((row, value) for row in rows for value in measured(row))


def key_of(row: Row, value: Value) -> Key:
    """What a column is found by: data set, metric, extractor and n."""
    return row.dataset, value.metric, value.extractor, value.n


def _facts(row: Row, value: Value) -> dict[str, object]:
    """What two values must share to be compared."""
    return {
        "extractor hash": value.extractor_hash,
        "reference set": row.reference,
        "reference hash": row.reference_hash,
        "reference size": row.reference_n,
        "metric version": value.version,
        "direction": value.direction,
        "data hash": row.data_hash,
        MEASURED_BY: value.signature[:12],
    }


def differing_fact(one: RowValue, other: RowValue) -> tuple[str, str]:
    """The first fact that two values do not share, and a clause about it; '' for none."""
    there, here = _facts(*one), _facts(*other)
    for name in there:
        # Old rows do not state what code measured them.
        unknown = name == MEASURED_BY and "" in (there[name], here[name])
        if there[name] != here[name] and not unknown:
            clause = f"{name} is {there[name]!r} for {_who(one[0])} and {here[name]!r}"
            return name, f"{clause} for {_who(other[0])}"
    return "", ""


def make_columns(rows: Sequence[Row]) -> tuple[tuple[Column, ...], dict[Column, str]]:
    """The measures, and why the floor of some cannot be compared with their other rows."""
    told = {v.metric: v.about for _, v in values(sorted(rows, key=age)) if v.about}
    first: dict[Key, RowValue] = {}
    apart: dict[Key, str] = {}
    # The floor comes last, so that a column has the facts of generated samples.
    for row, value in values(sorted(rows, key=lambda r: r.method == FLOOR)):
        known = first.setdefault(key_of(row, value), (row, value))
        wrong, difference = differing_fact(known, (row, value))
        if wrong and row.method == FLOOR != known[0].method:
            apart[key_of(row, value)] = difference
        elif wrong:
            advice = "report them separately or measure them in the same way"
            if wrong == MEASURED_BY:
                advice = "run the sweep of the older rows again to measure them with today's code"
            title = _column(*known, About(), ()).title
            raise UserError(
                f"These rows cannot share the column {title!r} of {row.dataset}: {difference}; "
                f"{advice}."
            )
    real = {key_of(r, v) for r, v in values(rows) if r.method == FLOOR}
    generated = [key for key, (row, _) in first.items() if row.method != FLOOR]
    for key in [key for key in first if key not in generated]:
        # The floor has no column where the measure of generated samples has another n.
        same = [k for k in generated if k[:3] == key[:3]]
        for k in [k for k in same if k not in real]:
            clause = f"n is {k[3]} for {_who(first[k][0])} and {key[3]} for {_who(first[key][0])}"
            apart[k] = clause
        if same:
            del first[key]
    shared = shared_sampling(rows)
    columns = {
        key: _column(
            row, value, told.get(value.metric) or _about(value.metric), shared[row.dataset]
        )
        for key, (row, value) in first.items()
    }
    order = sorted(columns.values(), key=lambda c: (c.dataset, c.about.order, *c.key[1:3], -c.n))
    left_out = "The floor is left out, since it is not comparable"
    return tuple(order), {columns[key]: f"{left_out}: {why}." for key, why in apart.items()}


def _column(row: Row, value: Value, about: About, shared: Sequence[str]) -> Column:
    return Column(
        dataset=row.dataset,
        metric=value.metric,
        extractor=value.extractor,
        label=value.label,
        direction=value.direction,
        n=value.n,
        version=value.version,
        extractor_hash=value.extractor_hash,
        reference=row.reference,
        reference_hash=row.reference_hash,
        reference_n=row.reference_n,
        about=about,
        sampling=", ".join(shared),
    )


def _about(metric: str) -> About:
    """The facts of a metric that no row states, as in old rows: those of the registered metric.

    The facts of precision_k3 and the like hold for other numbers of neighbours too.
    """
    from metrics import METRICS

    if metric in METRICS:
        return METRICS[metric].about
    stem, by_k, k = metric.partition("_k")
    if f"{stem}_k3" not in METRICS:
        return About()
    known = METRICS[f"{stem}_k3"].about
    return known.model_copy(update={"against": known.against.replace("_k3", by_k + k)})


def _who(row: Row) -> str:
    return f"{row.method} (run {row.run}, g = {row.guidance:g}, seed {row.seed})"
