"""What a report needs to know about a metric, stated by the metric itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Standing = Literal["headline", "shown", "listed"]
Scale = Literal["auto", "linear", "log"]
ErrorOf = Literal["given reference", "generated", "real", "both"]
MetricName = Annotated[str, Field(max_length=200)]

LAST = 1000
"""Order of a metric that states none."""


class About(BaseModel):
    """How a metric is ordered, compared, drawn and explained; the defaults suit any metric.

    Rows carry it, so a report needs no plugin. It is not part of a value's identity: results remain
    valid when it or the label changes. Inconsistent facts raise a ValidationError when the metric
    is defined.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    order: int = Field(
        LAST,
        ge=0,
        le=LAST,
        description="place in tables, built-in ones are 10, 20, ...; ties go by name",
    )
    standing: Standing = Field(
        "listed",
        description="'headline': methods are compared by it; 'shown': it has figures for rules too",
    )
    lead: int = Field(
        0,
        ge=0,
        le=9,
        description="the highest leads: it is plotted against cost and tuned by default",
    )
    low: float | None = Field(None, description="least possible value; None: unbounded or unknown")
    high: float | None = Field(None, description="largest possible value; None likewise")
    scale: Scale = Field("auto", description="value axes; 'auto' is 'log' for values over decades")
    ratios: bool = Field(
        False,
        description="always above 0, so that ratios of values make sense and the tuner averages "
        "logarithms",
    )
    plug_in: bool = Field(False, description="biased upwards by finite samples, roughly as 1/n")
    minimum: bool = Field(False, description="papers report its minimum over sampling seeds")
    error_of: ErrorOf = Field(
        "given reference",
        description="sampling that its standard error counts: that of the generated set given the "
        "reference, that of one set if the other does not matter, or that of both",
    )
    against: MetricName = Field(
        "", description="set on a metric of quality: the metric of variety it is plotted against"
    )
    strength: bool = Field(
        False, description="says how strongly guidance acted: reports offer it as an x-axis"
    )
    published_as: MetricName = Field("", description="its name in tables of published numbers")

    @property
    def is_headline(self) -> bool:
        """Whether methods are compared by it."""
        return self.standing == "headline"

    @model_validator(mode="after")
    def _agrees(self) -> About:
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low is {self.low}, which is not below high, {self.high}")
        if (self.ratios or self.scale == "log") and (self.low is None or self.low < 0):
            what = "ratios=True" if self.ratios else "scale='log'"
            raise ValueError(f"{what} needs low=0 or more, got low={self.low}")
        return self
