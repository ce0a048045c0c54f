"""How the field measures: sets of metrics with their features, k, tie rule and sample counts."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Literal, NamedTuple

from pydantic import Field

from bench.experiment.rows import Labels
from bench.system.errors import OF_PLUGIN, UserError, unknown
from methods.settings import Settings

LITE = "efficientnet-lite0"
FID_SAMPLES = 50_000


class Measure(NamedTuple):
    """A metric on the features of an extractor; `title` is its name in the field, if it has one."""

    metric: str
    extractor: str
    title: str = ""


class Protocol(Settings):
    """An entry of protocols.toml, which explains the fields."""

    name: str
    summary: str
    measures: tuple[Measure, ...]
    samples: int | None = None
    reference: int | None = None
    reference_most: int | None = None
    labels: Labels | Literal[""] = Field("", description="classes of published samples; '' if open")
    notes: tuple[str, ...] = ()

    @property
    def described(self) -> str:
        """The summary, with the labels of the samples."""
        return f"{self.summary}; {self.labels} labels" if self.labels else self.summary

    @property
    def extractors(self) -> tuple[str, ...]:
        """Every extractor once, in order."""
        return tuple(dict.fromkeys(m.extractor for m in self.measures))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every metric once, in order."""
        return tuple(dict.fromkeys(m.metric for m in self.measures))

    def has(self, metric: str, extractor: str) -> bool:
        """Whether it measures this metric on the features of this extractor."""
        return any(m[:2] == (metric, extractor) for m in self.measures)


_TABLE = (resources.files("bench.experiment") / "protocols.toml").read_text(encoding="utf-8")
PROTOCOLS = {name: Protocol(name=name, **entry) for name, entry in tomllib.loads(_TABLE).items()}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name; UserError, with the closest match, for an unknown name."""
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]


def unknown_metric(name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown metric; for the field's name of one, it says what to type."""
    named = {
        measure.title.lower(): (measure, protocol.name)
        for protocol in reversed(PROTOCOLS.values())  # the first of several counts
        for measure in protocol.measures
        if measure.title
    }
    if name.lower() not in named:
        return unknown("metric", name, known, OF_PLUGIN)
    measure, protocol_name = named[name.lower()]
    return UserError(
        f"{measure.title} is the metric {measure.metric} on features of {measure.extractor}: "
        f"--metric {measure.metric} --extractor {measure.extractor}, or --protocol "
        f"{protocol_name}.",
        code=2,
    )


def title(label: str, metric: str, extractor: str, n: int, protocol: str = "") -> str:
    """A value's name in tables: the field's name if it applies, else label, extractor and n.

    "FID" and "sFID" apply to 50,000 images only.
    """
    for measure in PROTOCOLS[protocol].measures if protocol else ():
        if measure[:2] == (metric, extractor) and measure.title:
            fid = measure.title in ("FID", "sFID")
            if fid and n == FID_SAMPLES:
                return measure.title
            if not fid and n == (PROTOCOLS[protocol].samples or n):
                return f"{measure.title} @{n}"
    return " ".join(part for part in (label, extractor, f"@{n}") if part)
