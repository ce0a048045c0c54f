"""Which rules are tuned for which runs, and what a search costs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.experiment.place import Experiment
from bench.experiment.rules import no_rules, parse_rules, study_rules
from bench.experiment.suite import Study
from bench.sweep.plan import Sweep, plan_sweeps, swept_datasets
from bench.sweep.price import seconds_per_nfe
from bench.system.errors import UserError, counted
from bench.system.progress import Say, duration
from bench.training.card import method_class
from bench.training.run import train_command
from bench.tuning.aim import make_aim
from bench.tuning.request import TuneRequest
from bench.tuning.space import Space
from bench.tuning.store import read_trials, trials_folder
from bench.tuning.tune import Job
from methods import Guidance
from methods.rules import RULES


def plan_jobs(
    request: TuneRequest, suite_studies: Sequence[Study], experiment: Experiment, say: Say
) -> list[Job]:
    """The searches of a request; UserError if there is none.

    `suite_studies` are the studies of its suite, empty without one.
    """
    studies = _tunable(request, suite_studies) if request.suite else _asked(request, experiment)
    sweeps, _ = plan_sweeps(request.measuring(studies), experiment, say)
    jobs = _jobs(sweeps, request, say)
    if not jobs and any(run.method.takes_rules for s in sweeps for run in s.runs):
        raise UserError("Nothing can be tuned: all runs and rules are skipped, as said above.")
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
    """The studies of a suite that have a rule with knobs to tune."""
    found = [s for s in studies if any(Space(choice.rule).axes for choice in study_rules(s))]
    if not found:
        raise UserError(
            f"No rule of the suite {request.suite!r} has knobs to tune: bench list rules.", code=2
        )
    return found


def _asked(request: TuneRequest, experiment: Experiment) -> list[Study]:
    """One study of the requested rules per data set."""
    if not request.rule_names:
        raise UserError("Say what to tune: --rule NAME (bench list rules) or --suite.", code=2)
    base = Study(dataset="", methods=(), rules=parse_rules(request.rule_names))
    for choice in study_rules(base):
        if not Space(choice.rule).axes:
            able = sorted(name for name, rule in RULES.items() if rule.search)
            raise UserError(
                f"Rule {choice.rule.name!r} has no knobs to tune; these have: "
                f"{', '.join(able) or 'none'}.",
                code=2,
            )
    for method in request.methods:
        if (reason := no_rules(method_class(method))) is not None:
            raise UserError(f"--method {method}: {reason}.", code=2)
    names = request.datasets or swept_datasets(experiment, request.methods)
    return [base.model_copy(update={"dataset": name}) for name in names]


def _jobs(sweeps: Sequence[Sweep], request: TuneRequest, say: Say) -> list[Job]:
    jobs = []
    for planned in sweeps:
        for run in planned.runs:
            if not run.method.takes_rules:
                continue
            steps = planned.study.steps or run.card.steps
            for choice in study_rules(planned.study):
                space = Space(choice.rule)
                if not space.axes:
                    continue
                if choice.knobs_from == "suite":
                    say(f"Skipped {choice.rule.name}: the suite gives its knobs.")
                    continue
                aim = make_aim(
                    planned.evaluation, request.scales, steps[0], planned.samples, request.block,
                    request.outcomes(planned.evaluation.data),
                )  # fmt: skip
                job = Job(run, space, planned.evaluation, aim)
                reason = job.impossible()
                if reason is None:
                    jobs.append(job)
                else:
                    say(f"Skipped {job.name}: {reason}.")
    return jobs


def price(job: Job, experiment: Experiment, budget: int, batch: int, device: torch.device) -> str:
    """Remaining trials, network evaluations and time of a search, in a sentence.

    Knobs may change the number of evaluations; this counts with the default knobs.
    """
    trials = read_trials(trials_folder(experiment.tuned, job.run.name, job.rule.name, job.key))
    done = sum(trial.status != "failed" for trial in trials)
    left = max(budget - done, 0)
    method, aim = job.run.method, job.aim
    scales = [Guidance(g, job.rule) for g in aim.guidance]
    nfe = left * aim.samples * sum(method.nfe(guidance, aim.steps) for guidance in scales)
    baseline = job.of_cfg()
    if baseline is not None and left and not baseline.is_measured(experiment):
        cfg = [Guidance(g) for g in baseline.aim.guidance]
        nfe += aim.samples * sum(method.nfe(guidance, aim.steps) for guidance in cfg)
    seconds = 0.0
    if nfe:
        most = min(batch, aim.samples)
        seconds = nfe * seconds_per_nfe(job.run, scales[0], aim.steps, most, device)
    return (
        f"{job.name}: {counted(done, 'trial')} done, {left} to do, of {len(scales)} x "
        f"{aim.samples:,} samples: {nfe:,} NFE, about {duration(seconds)} on {device}."
    )
