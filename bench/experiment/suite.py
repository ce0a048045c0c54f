"""The suite file: which methods are trained on which data, and how they are swept."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from bench.experiment.place import (
    DEFAULT_EXPERIMENT,
    DEFAULT_INVERSIONS,
    DEFAULT_RESULTS,
    SAMPLES_MOST,
    SCALE_MOST,
    SEED_MOST,
    STEPS_MOST,
    Experiment,
    builtin_suites,
)
from bench.experiment.protocols import find_protocol
from bench.experiment.ranges import parse_range
from bench.experiment.rows import Labels
from bench.system.errors import UserError, explain
from bench.system.files import read_whole
from methods.settings import Grid, Settings, Solver

MOST = 1 << 20
"""Bytes of a suite."""
TUNING_SEEDS = 1_000_000_000
"""The first sampling seed of bench tune. Settings are chosen on samples of these seeds only, and a
sweep may not use them: no reported number depends on samples that a setting was chosen by."""
_LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){50}""")


Seed = Annotated[int, Field(ge=0, le=SEED_MOST)]
Steps = Annotated[int, Field(gt=0, le=STEPS_MOST)]
Scale = Annotated[float, Field(ge=-SCALE_MOST, le=SCALE_MOST)]


class Weaker(Settings):
    """A weaker edm run per seed, for rules that guide the study's edm runs away from it."""

    set: Mapping[str, Any] = Field(
        min_length=1, description="its settings, over those of the study and of the preset"
    )


def plus_free(rule: object) -> object:
    """A rule's name as registered: CFG++ is "cfgpp", because "+" joins rules.

    "diffusers:NAME" is "diffusers-NAME", which can be a part of a file's name.
    """
    if not isinstance(rule, str):
        return rule
    if "diffusers:" in rule:
        from methods.rules.guiders import PREFIX  # imports torch, which reports do without

        rule = rule.replace("diffusers:", PREFIX)
    return rule.replace("cfg++", "cfgpp")


class Study(Settings):
    """Methods and imported runs on one data set, swept over guidance."""

    dataset: str
    methods: tuple[str, ...] = ()
    runs: tuple[str, ...] = Field(
        (), description="imported runs, named like their files without .pkl"
    )
    null_run: str | None = Field(None, description="their unconditional branch, imported likewise")
    weak_run: str | None = Field(None, description="their weaker network, imported likewise")
    preset: str | None = None
    seeds: tuple[Seed, ...] = Field((0,), description="training seeds")
    set: Mapping[str, Any] = Field(default_factory=dict, description="settings of every method")
    guidance: tuple[Scale, ...] = Field(tuple(map(float, range(1, 14))), validate_default=True)
    rules: tuple[str, ...] = Field(
        ("cfg",), min_length=1, description="guidance rules, such as apg or interval+apg"
    )
    knobs: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="settings of rules, by rule and knob"
    )
    tuned: bool = Field(False, description="rules with the knobs that bench tune found")
    weak: Weaker | None = Field(None, description="None: no weaker network is trained")
    steps: tuple[Steps, ...] | None = Field(None, description="None: those of each preset")
    samples: int | None = Field(
        None, ge=2, le=SAMPLES_MOST, description="per cell; None: the data set's default"
    )
    sampling_seeds: tuple[Seed, ...] = (0,)
    metrics: tuple[str, ...] | None = None
    extractors: tuple[str, ...] | None = None
    protocol: str | None = Field(None, description="instead of metrics and extractors")
    sampler: Solver = Field("heun", description="of methods that integrate a trajectory")
    grid: Grid = Field("edm", description="spacing of the noise levels of such methods")
    labels: Labels | None = Field(
        None, description="classes of the samples; None: those of the protocol, or balanced"
    )
    matched: bool = Field(
        False, description="also CFG at the scales of equal outcome with other lines"
    )
    match_nfe: bool = Field(False, description="also CFG at the steps of equal cost")
    inversion: bool = Field(False, description="also invert, reconstruct and edit real images")
    inversion_samples: int = Field(
        DEFAULT_INVERSIONS, ge=2, le=SAMPLES_MOST, description="images inverted"
    )
    inversion_guidance: tuple[Scale, ...] | None = Field(None, description="None: as `guidance`")

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if self.protocol is not None and (self.metrics or self.extractors):
            raise ValueError("protocol sets metrics and extractors: drop those")
        if self.protocol is not None:
            try:
                find_protocol(self.protocol)
            except UserError as error:
                raise ValueError(str(error)) from None
        if not self.runs and (self.null_run or self.weak_run):
            raise ValueError("null_run and weak_run are for imported runs: add runs")
        if self.weak is not None and "edm" not in self.methods:
            raise ValueError("weak trains a weaker edm network: add edm to the methods")
        return self

    @property
    def sample_labels(self) -> Labels:
        """How samples get their classes: by `labels`, the protocol or in turn."""
        published = find_protocol(self.protocol).labels if self.protocol else ""
        return self.labels or published or "balanced"

    @field_validator("sampler", mode="before")
    @classmethod
    def _name_sampler(cls, value: object) -> object:
        return "euler" if value == "ddim" else value  # the same steps in this scaling of x

    @field_validator("rules", mode="before")
    @classmethod
    def _name_rules(cls, value: object) -> object:
        return tuple(map(plus_free, value)) if isinstance(value, list | tuple) else value

    @field_validator("guidance", "inversion_guidance", mode="before")
    @classmethod
    def _read_guidance(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                return parse_range(value, "guidance")
            except UserError as error:
                raise ValueError(str(error)) from None
        return value


class Suite(Settings):
    """A suite file: an experiment of one or more studies."""

    experiment: str = DEFAULT_EXPERIMENT
    launcher: Mapping[str, Any] = Field(
        default_factory=dict, description="who computes: name, workers, settings of the launcher"
    )
    study: tuple[Study, ...] = Field(min_length=1)

    @field_validator("study")
    @classmethod
    def _not_empty(cls, studies: tuple[Study, ...]) -> tuple[Study, ...]:
        if not all(study.methods or study.runs for study in studies):
            raise ValueError("a study has methods, or runs that were imported")
        return studies


def read_suite(name: str) -> Suite:
    """A suite by the path of a TOML file, or by the name of a built-in suite."""
    shipped = builtin_suites()
    path = shipped.get(name, Path(name))
    try:
        text = read_whole(path, MOST).decode("utf-8")
        if _LONG_KEY.search(text):  # tomllib needs the square of its length in memory and time
            raise ValueError("a key in it has very many parts")
        return Suite.model_validate(tomllib.loads(text))
    except OSError as error:
        raise UserError(
            f"Cannot read the suite {name!r}: {error.strerror}. Give a TOML file or one of: "
            f"{', '.join(shipped)}.",
            code=2,
        ) from None
    except ValidationError as error:
        raise UserError(f"Suite {path} is not usable: {explain(error)}.", code=2) from None
    except (ValueError, RecursionError) as error:  # ValueError also for very long numbers
        why = "it nests too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"Suite {path} is not TOML: {why}.", code=2) from None


def suite_studies(name: str, experiment: Experiment) -> tuple[tuple[Study, ...], Experiment]:
    """The studies of a suite, and their experiment: the suite's, or the one of --experiment."""
    suite = read_suite(name)
    if experiment.name == DEFAULT_EXPERIMENT:
        experiment = replace(experiment, name=suite.experiment)
    return suite.study, experiment


def flags(experiment: Experiment, suite: str | None = None) -> str:
    """Options by which the next command finds the same experiment, such as " --suite demo"."""
    found, usual = "", DEFAULT_EXPERIMENT
    if suite is not None:
        found, usual = f" --suite {shlex.quote(suite)}", read_suite(suite).experiment
    if experiment.name != usual:
        found += f" --experiment {experiment.name}"
    if experiment.results != DEFAULT_RESULTS:
        found += f" --results {shlex.quote(str(experiment.results))}"
    return found


def check_seeds(seeds: Sequence[int]) -> Sequence[int]:
    """The sampling seeds of a sweep; UserError for one that belongs to bench tune."""
    taken = [seed for seed in seeds if seed >= TUNING_SEEDS]
    if taken:
        raise UserError(
            f"Sampling seeds from {TUNING_SEEDS:,} up are reserved for bench tune, got {taken[0]}: "
            "use smaller ones, so that no number depends on samples that settings were chosen by.",
            code=2,
        )
    return seeds
