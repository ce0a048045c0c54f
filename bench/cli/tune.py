"""`bench tune`, once its options are parsed."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bench.cli.console import flags, refuse_beside_suite, suite_place
from bench.cli.sweep import swept_datasets
from bench.data.find import find_dataset
from bench.experiment.place import Experiment, without_writing
from bench.experiment.ranges import parse_range
from bench.experiment.rules import parse_rules, study_rules
from bench.experiment.suite import Study
from bench.plugins.load import FILES
from bench.sweep.plan import Equipment, Sweep, plan_experiment, plan_study
from bench.system.devices import resolve_device
from bench.system.errors import UserError
from bench.system.progress import say
from bench.training.extra_network import find_extra_networks
from bench.training.run import load_nets
from bench.training.runs import method_class
from bench.tuning.aim import check_scales, choose_metric, make_aim, shown
from bench.tuning.price import price
from bench.tuning.side import TrainSide
from bench.tuning.space import Space
from bench.tuning.store import Tuned, result_path
from bench.tuning.tune import Job, tune
from methods.rules import CFG, RULES


@dataclass(frozen=True)
class Wanted:
    """What is tuned and how, as options say it; None is a default."""

    rules: Sequence[str] | None
    methods: Sequence[str] | None
    datasets: Sequence[str] | None
    guidance: str
    metric: str | None
    extractor: str | None
    samples: int | None
    steps: int | None
    budget: int
    block: int
    suite: str | None
    null_checkpoint: str | None = None
    weak_checkpoint: str | None = None
    weights: Path | None = None
    download: bool = False
    scales: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        scales = parse_range(self.guidance, "--guidance")
        check_scales(scales)
        object.__setattr__(self, "scales", scales)

    def study(self, study: Study) -> Study:
        """A study as the tuner measures it: one metric, its own scales."""
        data = find_dataset(study.dataset)
        extractor = self.extractor or data.extractors[0]
        return study.model_copy(
            update={
                "guidance": self.scales,
                "metrics": (choose_metric(self.metric, data),),
                "extractors": (extractor,),
                "protocol": None,
                "samples": self.samples or study.samples,
                "steps": (self.steps,) if self.steps else study.steps,
                "tuned": False,
                "inversion": False,
            }
        )


def tune_all(
    console: Console,
    place: Experiment,
    wanted: Wanted,
    *,
    batch: int,
    device: str,
    dry_run: bool = False,
) -> None:
    """`bench tune`."""
    where = resolve_device(device)
    if dry_run:
        with without_writing(place) as place:
            jobs, place = _planned(console, place, wanted, where, patient=False)
            for job in jobs:
                say(console, price(job, place, wanted.budget, batch, where))
        say(console, "Nothing was computed.")
        return
    jobs, place = _planned(console, place, wanted, where, patient=True)
    problems = []
    for job in jobs:
        nets = cache(partial(load_nets, job.target, where))
        try:
            result = tune(
                job, nets, place, wanted.budget, batch=batch, device=where, console=console
            )
        except UserError as error:
            problems.append(str(error))
            continue
        _tell(console, job, result, place)
    if problems:
        raise UserError(" ".join(problems))
    rules = ",".join(dict.fromkeys([CFG.name, *(job.rule.name for job in jobs)]))
    if wanted.suite is None:
        say(console, f"Next: bench sweep --rule {rules} --tuned{_again(wanted)}{flags(place)}")
    else:
        suite = shlex.quote(wanted.suite)
        say(console, f"Next, with tuned = true in its studies: bench sweep --suite {suite}")


def _planned(
    console: Console, place: Experiment, wanted: Wanted, device: torch.device, *, patient: bool
) -> tuple[list[Job], Experiment]:
    """What is to be tuned, and the experiment it is in."""

    def equip(place: Experiment) -> Equipment:
        seconds = find_extra_networks(
            place, null=wanted.null_checkpoint, weak=wanted.weak_checkpoint
        )
        tell = partial(say, console)
        return Equipment(wanted.weights, wanted.download, device, tell, seconds, patient, TrainSide)

    if wanted.suite is not None:
        refuse_beside_suite(
            rule=wanted.rules, method=wanted.methods, dataset=wanted.datasets, steps=wanted.steps
        )
        studies, place = suite_place(wanted.suite, place)
        sweeps, left_out = _of_suite(studies, place, wanted, equip(place))
    else:
        sweeps, left_out = _of_options(place, wanted, equip(place))
    for line in left_out:
        say(console, f"Left out {line}.")
    jobs = _jobs(console, sweeps, wanted)
    if not jobs and any(found.method.takes_rules for s in sweeps for found, _ in s.targets):
        raise UserError("Nothing can be tuned: every run and rule is left out, as said above.")
    if not jobs:
        raise UserError(
            f"Nothing can be tuned in {place.runs}: that takes a finished run of a method which "
            f"is guided at sampling, such as edm: bench train --method edm{flags(place)}."
        )
    return jobs, place


def _again(wanted: Wanted) -> str:
    """The options that a sweep needs in order to reach the same runs."""
    parts = [f" --method {name}" for name in wanted.methods or ()]
    parts += [f" --dataset {name}" for name in wanted.datasets or ()]
    parts += [f" --plugin {shlex.quote(str(file))}" for file in FILES]
    for option, name in (("null", wanted.null_checkpoint), ("weak", wanted.weak_checkpoint)):
        if name:
            parts.append(f" --{option}-checkpoint {shlex.quote(name)}")
    return "".join(parts)


def _of_suite(
    studies: Sequence[Study], place: Experiment, wanted: Wanted, equipment: Equipment
) -> tuple[list[Sweep], list[str]]:
    sweeps, left_out, some = [], [], False
    for study in studies:
        axes = [Space(choice.rule).axes for choice in study_rules(study)]
        if not any(axes):
            continue
        some = True
        planned, lines = plan_study(wanted.study(study), place, equipment)
        sweeps.append(planned)
        left_out += lines
    if not some:
        raise UserError(
            f"No rule of the suite {wanted.suite!r} has knobs to tune: bench list rules.", code=2
        )
    return sweeps, left_out


def _of_options(
    place: Experiment, wanted: Wanted, equipment: Equipment
) -> tuple[list[Sweep], list[str]]:
    if not wanted.rules:
        raise UserError("Say what to tune: --rule NAME (bench list rules) or --suite.", code=2)
    base = Study(dataset="", methods=(), rules=parse_rules(wanted.rules))
    for choice in study_rules(base):
        if not Space(choice.rule).axes:
            able = sorted(name for name, rule in RULES.items() if rule.search)
            raise UserError(
                f"Rule {choice.rule.name!r} has no knobs to tune; these have: "
                f"{', '.join(able) or 'none'}.",
                code=2,
            )
    for method in wanted.methods or ():
        if not method_class(method).takes_rules:
            raise UserError(
                f"--method {method}: only methods that are guided at sampling take rules.", code=2
            )
    names = wanted.datasets or swept_datasets(place, wanted.methods)
    table: Mapping[str, Study] = {
        name: wanted.study(base.model_copy(update={"dataset": name})) for name in names
    }
    return plan_experiment(table, place, equipment, methods=wanted.methods)


def _jobs(console: Console, sweeps: Sequence[Sweep], wanted: Wanted) -> list[Job]:
    jobs = []
    for planned in sweeps:
        for found, _ in planned.targets:
            if not found.method.takes_rules:
                continue
            steps = planned.study.steps or found.card.steps
            for choice in study_rules(planned.study):
                space = Space(choice.rule)
                if not space.axes:
                    continue
                if choice.knobs_from == "suite":
                    say(console, f"Left out {choice.rule.name}: the suite gives its knobs.")
                    continue
                aim = make_aim(
                    planned.evaluation, wanted.scales, steps[0], planned.samples, wanted.block
                )
                job = Job(found, space, planned.evaluation, aim)
                reason = job.impossible()
                if reason is None:
                    jobs.append(job)
                else:
                    say(console, f"Left out {job.name}: {reason}.")
    return jobs


def _tell(console: Console, job: Job, result: Tuned, place: Experiment) -> None:
    knobs = ", ".join(f"{axis.rule}.{axis.knob}={_knob(result, axis)}" for axis in job.space.axes)
    failed = sum(trial.status != "ok" for trial in result.trials)
    say(
        console,
        f"{job.name}: {shown(job.aim, result.score)} with {knobs}; "
        f"{shown(job.aim, result.default_score)} by default ({job.aim.what}). The best of "
        f"{len(result.trials)} trials"
        + (f", {failed} of which failed or diverged" if failed else "")
        + f": {result_path(place.tuned, result.run, result.rule)}",
    )
    if len(result.trials) < result.budget:
        say(console, f"{job.name}: there are no more knobs to try than these.")


def _knob(result: Tuned, axis: Any) -> str:
    value = result.knobs[f"{axis.rule}.{axis.knob}"]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
