"""Which rules are tuned for which runs."""

from __future__ import annotations

from collections.abc import Sequence

from bench.experiment.place import Experiment
from bench.experiment.rules import parse_rules, study_rules
from bench.experiment.suite import Study
from bench.sweep.plan import Sweep, plan_sweeps, swept_datasets
from bench.system.errors import UserError
from bench.system.progress import Say
from bench.training.card import method_class
from bench.training.run import train_command
from bench.tuning.aim import make_aim
from bench.tuning.request import TuneRequest
from bench.tuning.space import Space
from bench.tuning.tune import Job
from methods.rules import RULES


def plan_jobs(
    request: TuneRequest, suite_studies: Sequence[Study], experiment: Experiment, say: Say
) -> list[Job]:
    """The searches that are asked for; UserError if there is none.

    `suite_studies` are those of the suite, empty without one.
    """
    studies = _tunable(request, suite_studies) if request.suite else _asked(request, experiment)
    sweeps, _ = plan_sweeps(request.sweep(studies), experiment, say)
    jobs = _jobs(sweeps, request, say)
    if not jobs and any(found.method.takes_rules for s in sweeps for found, _ in s.targets):
        raise UserError("Nothing can be tuned: every run and rule is left out, as said above.")
    if not jobs:
        method = request.methods[0] if request.methods else "edm"
        only = request.datasets[0] if len(request.datasets) == 1 else None
        raise UserError(
            f"Nothing can be tuned in {experiment.runs}: tuning needs a finished run of a method "
            f"that is guided at sampling, such as edm: "
            f"{train_command(experiment, method, only, request.suite)}."
        )
    return jobs


def _tunable(request: TuneRequest, studies: Sequence[Study]) -> list[Study]:
    """The studies of a suite with a rule that has knobs to tune."""
    found = [s for s in studies if any(Space(choice.rule).axes for choice in study_rules(s))]
    if not found:
        raise UserError(
            f"No rule of the suite {request.suite!r} has knobs to tune: bench list rules.", code=2
        )
    return found


def _asked(request: TuneRequest, experiment: Experiment) -> list[Study]:
    """A study of the rules asked for on each data set."""
    if not request.rules:
        raise UserError("Say what to tune: --rule NAME (bench list rules) or --suite.", code=2)
    base = Study(dataset="", methods=(), rules=parse_rules(request.rules))
    for choice in study_rules(base):
        if not Space(choice.rule).axes:
            able = sorted(name for name, rule in RULES.items() if rule.search)
            raise UserError(
                f"Rule {choice.rule.name!r} has no knobs to tune; these have: "
                f"{', '.join(able) or 'none'}.",
                code=2,
            )
    for method in request.methods:
        if not method_class(method).takes_rules:
            raise UserError(
                f"--method {method}: only methods that are guided at sampling take rules.", code=2
            )
    names = request.datasets or swept_datasets(experiment, request.methods)
    return [base.model_copy(update={"dataset": name}) for name in names]


def _jobs(sweeps: Sequence[Sweep], request: TuneRequest, say: Say) -> list[Job]:
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
                    say(f"Left out {choice.rule.name}: the suite gives its knobs.")
                    continue
                aim = make_aim(
                    planned.evaluation, request.scales, steps[0], planned.samples, request.block
                )
                job = Job(found, space, planned.evaluation, aim)
                reason = job.impossible()
                if reason is None:
                    jobs.append(job)
                else:
                    say(f"Left out {job.name}: {reason}.")
    return jobs
