"""What lines are drawn against: guidance, a cost, or a measure such as strength or precision."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report.numbers.columns import Column
from bench.report.numbers.frame import Data, Series
from bench.report.numbers.pareto import COSTS
from bench.system.errors import unknown

GUIDANCE = "g"


@dataclass(frozen=True)
class Across:
    """An x-axis: "g", one of COSTS, or a measure on the same samples and features as `column`."""

    name: str
    measure: Column | None
    label: str

    def at(self, data: Data, series: Series, guidance: float) -> float | None:
        """The place of a line at a scale; None if it is unknown."""
        if self.measure is not None:
            cell = data.cell(self.measure, series, guidance)
            return cell.mean if cell.found else None
        nfe, seconds = data.cost(series, guidance)
        found = {GUIDANCE: guidance, "nfe": float(nfe), "seconds": seconds}[self.name]
        return found if self.name == GUIDANCE or found > 0 else None


def across(data: Data, column: Column, name: str) -> Across | None:
    """The axis of a name for a measure; None if its data set has no such values.

    "precision" also finds "precision_k3".
    """
    if name == GUIDANCE or name in COSTS:
        return Across(name, None, COSTS.get(name, "guidance g (1 = off)"))
    for other in data.columns:
        alike = (other.dataset, other.n) == (column.dataset, column.n)
        named = other.metric == name or other.metric.startswith(f"{name}_k")
        if alike and named and other.extractor in ("", column.extractor):
            return Across(name, other, other.title)
    return None


def check_across(data: Data, name: str) -> None:
    """UserError unless some measure of the rows can be drawn against this."""
    known = name == GUIDANCE or name in COSTS
    if not known and not any(across(data, column, name) for column in data.columns):
        metrics = sorted({column.metric for column in data.columns})
        raise unknown("--x", name, [GUIDANCE, *COSTS, *metrics])
