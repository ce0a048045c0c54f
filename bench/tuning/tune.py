"""The search itself: trial after trial, each durable before the next starts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.evaluation.prepare import Evaluation, accumulate
from bench.experiment.identity import digest
from bench.experiment.place import Experiment
from bench.experiment.provenance import now, provenance
from bench.sweep.generate import Diverged, generate, refuse_constant
from bench.system.errors import UserError
from bench.system.failures import system_error
from bench.system.progress import SILENT, Reporter, Tick
from bench.training.run import Run
from bench.tuning.aim import score, shown
from bench.tuning.search import Proposal, best_trial, propose
from bench.tuning.space import Space
from bench.tuning.store import (
    Aim,
    ScaleValue,
    Trial,
    Tuned,
    read_trials,
    result_path,
    trial_path,
    write_entry,
)
from bench.tuning.subject import subject_of
from methods import Guidance
from methods.rules import Rule


@dataclass(frozen=True)
class Job:
    """A rule to be tuned for a run."""

    target: Run
    space: Space
    evaluation: Evaluation
    aim: Aim

    @property
    def rule(self) -> Rule[Any]:
        """The rule with its default knobs."""
        return self.space.base

    @property
    def name(self) -> str:
        """The job in a line of progress."""
        return f"{self.target.card.name}, {self.rule.name}"

    @property
    def subject(self) -> dict[str, str]:
        """Hashes of what the result will be true of."""
        return subject_of(self.target, self.rule)

    @property
    def key(self) -> str:
        """Hash of all that trials depend on: the same search goes on where it stopped."""
        start = self.rule.settings()
        return digest(
            {"subject": self.subject, "aim": self.aim.model_dump(mode="json"), "start": start}
        )

    def impossible(self) -> str | None:
        """Why the rule cannot be used for this run, or None."""
        for scale in self.aim.guidance:
            reason = self.target.method.supports(Guidance(scale, self.rule), self.aim.steps)
            if reason is not None:
                return reason
        return None


def tune(
    job: Job,
    nets: Callable[[], nn.Module],
    experiment: Experiment,
    budget: int,
    *,
    batch: int,
    device: torch.device,
    reporter: Reporter = SILENT,
) -> Tuned:
    """Make the trials that are missing up to `budget` and write the result, of all there are.

    `nets` gives the networks when they are needed. Trials that failed are tried again; one that
    diverged counts as worse than all others. UserError if none could be measured.
    """
    card, key = job.target.card, job.key
    trials = read_trials(experiment.tuned, card.name, job.rule.name, key)
    budget = max(budget, len(trials))
    images = len(job.aim.guidance) * job.aim.samples
    redo = [trial for trial in trials if trial.status == "failed"]
    title = f"tune {job.name}"
    with reporter.bar(title, budget * images, (len(trials) - len(redo)) * images) as bar:
        done = len(trials) - len(redo)

        def make(index: int, proposal: Proposal) -> Trial:
            nonlocal done
            found = best_trial(trials)
            so_far = f", best {shown(job.aim, found.score)}" if found else ""
            message = f"trial {index + 1}{so_far}"
            before = done * images

            def tick(count: int) -> None:
                nonlocal before
                before += count
                bar.update(before, message)

            trial = run_trial(job, index, proposal, nets(), batch=batch, device=device, tick=tick)
            path = trial_path(experiment.tuned, card.name, job.rule.name, key, index)
            write_entry(path, trial)
            done += 1
            bar.update(done * images, message)
            return trial

        for old in redo:
            rule = job.space.base if old.kind == "default" else job.space.rule(old.point)
            assert rule is not None
            trials[old.index] = make(old.index, Proposal(old.kind, old.point, rule))
        while len(trials) < budget:
            proposal = propose(job.space, trials, job.aim.seed)
            if proposal is None:
                break
            trials.append(make(len(trials), proposal))
    return _result(job, trials, budget, experiment)


def run_trial(
    job: Job,
    index: int,
    proposal: Proposal,
    nets: nn.Module,
    *,
    batch: int,
    device: torch.device,
    tick: Tick = lambda _: None,
) -> Trial:
    """Sample and measure one setting of the knobs at every scale."""
    trial = Trial(
        index=index,
        kind=proposal.kind,
        point=proposal.point,
        knobs=proposal.rule.settings(),
        status="ok",
        created=now(),
    )
    started = time.perf_counter()
    values: list[ScaleValue] = []
    try:
        for scale in job.aim.guidance:
            guidance = Guidance(scale, proposal.rule)
            values.append(_measure(job, guidance, nets, batch, device, tick))
    except Diverged as error:
        return trial.model_copy(update={"status": "diverged", "reason": str(error)})
    except UserError:
        raise
    except Exception as error:  # the code of a rule or metric may fail in any way
        if system_error(error) is not None:  # which further trials would meet as well
            raise
        reason = f"{type(error).__name__}: {error}"
        return trial.model_copy(update={"status": "failed", "reason": reason})
    return trial.model_copy(
        update={
            "values": tuple(values),
            "score": score(job.aim, [entry.value for entry in values]),
            "seconds": time.perf_counter() - started,
        }
    )


def _measure(
    job: Job, guidance: Guidance, nets: nn.Module, batch: int, device: torch.device, tick: Tick
) -> ScaleValue:
    accumulator = job.evaluation.accumulator()
    stream = generate(
        job.target.method, nets, guidance, job.aim.steps, job.aim.seed, job.aim.samples,
        batch=batch, device=device,
    )  # fmt: skip
    for x, labels in refuse_constant(stream):
        accumulate(accumulator, x, labels)
        tick(len(labels))
    found = job.evaluation.measure(accumulator.finish(), guidance.scale)
    if not found.values:
        raise ValueError("; ".join([*found.problems, *found.unmeasured.values()]))
    (value,) = found.values
    return ScaleValue(guidance=guidance.scale, value=value.value, se=value.se)


def _result(job: Job, trials: list[Trial], budget: int, experiment: Experiment) -> Tuned:
    card, best = job.target.card, best_trial(trials)
    if best is None or best.score is None:
        raise UserError(
            f"No trial of {job.name} could be measured; the first: {trials[0].reason}. Run "
            "the same command to try the failed ones again."
        )
    result = Tuned(
        run=card.name,
        dataset=card.dataset,
        method=card.method,
        rule=job.rule.name,
        subject=job.subject,
        aim=job.aim,
        search={f"{axis.rule}.{axis.knob}": repr(axis.over) for axis in job.space.axes},
        budget=budget,
        best=best.index,
        knobs=best.knobs,
        score=best.score,
        default_score=trials[0].score,
        trials=tuple(trials),
        created=now(),
        provenance=provenance(),
    )
    write_entry(result_path(experiment.tuned, card.name, job.rule.name), result)
    return result
