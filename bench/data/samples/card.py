"""The card of a file of samples, by which it is checked and resumed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.data import Dataset
from bench.data.convert import sampling_labels
from bench.system.bounds import Scalar
from bench.system.errors import explain
from methods.settings import Grid, Solver
from methods.spec import DataSpec

SAMPLES_JSON = "samples.json"
_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")


class SampleCard(BaseModel):
    """Everything that determines the samples; stored as samples.json, or inside the file.

    Sample i has class `classes[i mod len(classes)]` and the noise of (seed, i).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    method: str
    dataset: str
    checkpoint: str
    """SHA-256 of the weights, '' if there are none."""
    guidance: float
    rule: str = ""
    """Guidance rule; '' is CFG, the method's own rule, or off."""
    knobs: Mapping[str, Scalar] = Field(default_factory=dict)
    """Settings of the rule, by rule.knob."""
    steps: int
    sampler: Solver = "heun"
    grid: Grid = "edm"
    nfe: int
    seed: int
    n: int = Field(ge=1)
    shape: tuple[int, ...]
    classes: tuple[int, ...] = Field(min_length=1)
    class_names: tuple[str, ...]
    """Names of all classes of the data set, by index."""
    cell: str
    """Key of the cell in a sweep with as many samples of all classes."""

    @model_validator(mode="after")
    def _known_classes(self) -> SampleCard:
        if not all(0 <= label < len(self.class_names) for label in self.classes):
            raise ValueError(f"classes outside the {len(self.class_names)} that have names")
        return self

    @property
    def labels(self) -> list[int]:
        """The class of every sample."""
        return sampling_labels(torch.arange(self.n), len(self.class_names), self.classes).tolist()

    def folder(self, label: int) -> str:
        """Name of a class's folder."""
        return class_folder(label, self.class_names)

    def file(self, index: int, label: int) -> str:
        """Relative name of an image: '3-cat/000012.png'."""
        return f"{self.folder(label)}/{index:06d}.png"

    def with_labels(self) -> str:
        """The card's JSON with all labels, for a folder or ZIP."""
        every = ", ".join(map(str, self.labels))
        return f'{self.model_dump_json(indent=2)[:-2]},\n  "labels": [{every}]\n}}\n'


def class_folder(label: int, names: Sequence[str]) -> str:
    """Name of a class's folder: '3-cat', or '03-cat' with more than ten; sorts like classes."""
    width = len(str(len(names) - 1))
    return f"{label:0{width}d}-{_UNFIT.sub('_', names[label])}"


def class_names(data: Dataset, spec: DataSpec) -> tuple[str, ...]:
    """Names by class index; the indices themselves if a data set has no names."""
    names = tuple(getattr(data, "class_names", ()))
    return names if len(names) == spec.num_classes else tuple(map(str, range(spec.num_classes)))


def parse_sample_card(text: str | bytes) -> SampleCard:
    """A card from its JSON, with or without labels; ValueError, in one line, if it is invalid."""
    try:
        tree: Any = json.loads(text)
        if isinstance(tree, dict):
            tree.pop("labels", None)
        return SampleCard.model_validate_json(json.dumps(tree))
    except (ValidationError, RecursionError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else "nested too deeply"
        raise ValueError(reason) from None


def differences(there: SampleCard, here: SampleCard) -> str:
    """The differences of two cards, '' if they agree."""
    old, new = there.model_dump(mode="json"), here.model_dump(mode="json")
    names = [k for k in new if old[k] != new[k]]
    if names == ["cell"]:
        return "the code, settings or training data of the method changed"
    # The key of the cell only summarises the other differences.
    return "; ".join(
        f"{k} is {_short(old[k])} there, {_short(new[k])} here" for k in names if k != "cell"
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
