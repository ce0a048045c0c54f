"""The search: trials that processes share, each stored before the next starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.evaluation.prepare import Evaluation, accumulate
from bench.experiment.identity import digest
from bench.experiment.place import Experiment
from bench.experiment.provenance import now, provenance
from bench.experiment.rows import Status
from bench.sweep.decoded import loaded
from bench.sweep.execute import execute
from bench.sweep.generate import refuse_constant
from bench.sweep.sampler import Stream, sampled
from bench.sweep.twins import Twins
from bench.sweep.work import WorkItem
from bench.system.errors import UserError
from bench.system.memory import Batches
from bench.system.progress import SILENT, Reporter, Tick
from bench.training.run import Run
from bench.tuning.aim import score, shown
from bench.tuning.search import Proposal, best_trial, proposal_of, propose, round_end
from bench.tuning.space import Space
from bench.tuning.store import (
    Aim,
    ScaleValue,
    Trial,
    Tuned,
    read_trial,
    read_trials,
    result_path,
    trial_path,
    trials_folder,
    write_entry,
)
from bench.tuning.subject import subject_of
from bench.tuning.target import Target, baseline_scales, make_target
from methods import Guidance, Method
from methods.rules import CFG, Rule


@dataclass(frozen=True)
class Job:
    """A rule to tune for a run."""

    run: Run
    space: Space
    evaluation: Evaluation
    aim: Aim

    @property
    def rule(self) -> Rule[Any]:
        """The rule with its default knobs."""
        return self.space.base

    @property
    def name(self) -> str:
        """The name of the job in messages."""
        return f"{self.run.name}, {self.rule.name}"

    @property
    def subject(self) -> dict[str, str]:
        """Hashes of all that the result depends on."""
        return subject_of(self.run, self.rule)

    @property
    def key(self) -> str:
        """Hash of all that trials depend on: the same search resumes where it stopped."""
        start = self.rule.settings()
        return digest(
            {"subject": self.subject, "aim": self.aim.model_dump(mode="json"), "start": start}
        )

    def impossible(self) -> str | None:
        """The reason why the rule cannot be used for this run, or None."""
        for scale in self.aim.guidance:
            guidance = Guidance(scale, self.rule)
            reason = self.run.undecoded or self.run.method.supports(guidance, self.aim.steps)
            if reason is not None:
                return reason
        cfg = self.of_cfg()
        reason = None if cfg is None else cfg.impossible()
        return reason and f"{reason}, and knobs are compared with CFG: use --aim metric"

    def of_cfg(self) -> Job | None:
        """The single trial of CFG that settings are compared with; None for an absolute aim."""
        if not self.aim.outcomes or self.rule.name == CFG.name:
            return None
        scales = baseline_scales(self.aim.guidance)
        aim = self.aim.model_copy(update={"guidance": scales})
        return replace(self, space=Space(CFG()), aim=aim)

    def folder(self, experiment: Experiment) -> Path:
        """The folder of its trials."""
        return trials_folder(experiment.tuned, self.run.name, self.rule.name, self.key)

    def is_measured(self, experiment: Experiment) -> bool:
        """Whether its first trial is there."""
        path = trial_path(self.folder(experiment), 0)
        return path.exists() and read_trial(path).status == "ok"


@dataclass(frozen=True, kw_only=True)
class TrialWork(WorkItem):
    """A setting of the knobs to be sampled and measured at every scale."""

    job: Job
    index: int
    proposal: Proposal
    device: torch.device
    loaded: Callable[[], tuple[Method[Any], nn.Module]]
    twins: Twins
    target: Target | None = None

    def is_done(self, batch: int) -> bool:
        """Whether a result is stored."""
        return self.path.exists() and read_trial(self.path).status != "failed"

    def compute(self, batch: int, tick: Tick) -> bool:
        """Measure and store the trial."""
        started = time.perf_counter()
        values = tuple(
            self._measure(Guidance(scale, self.proposal.rule), batch, tick)
            for scale in self.job.aim.guidance
        )
        trial = self.trial("ok").model_copy(
            update={
                "values": values,
                "score": score(self.job.aim, values, self.target),
                "seconds": time.perf_counter() - started,
            }
        )
        write_entry(self.path, trial)
        return True

    def store(self, status: Status, reason: str) -> None:
        """Store why there is no score."""
        assert status != "skip"  # what a run cannot use is no job
        if not self.is_done(0):
            write_entry(self.path, self.trial(status, reason))

    def trial(self, status: Literal["ok", "diverged", "failed"], reason: str = "") -> Trial:
        """The trial without values."""
        return Trial(
            index=self.index,
            kind=self.proposal.kind,
            point=self.proposal.point,
            knobs=self.proposal.rule.settings(),
            status=status,
            reason=reason,
            created=now(),
        )

    def _measure(self, guidance: Guidance, batch: int, tick: Tick) -> ScaleValue:
        job, aim = self.job, self.job.aim
        accumulator = job.evaluation.accumulator()
        for x, labels in refuse_constant(self._samples(guidance, batch)):
            accumulate(accumulator, x, labels, tick)
        samples, twins = accumulator.finish(), None
        if job.evaluation.of_twins:
            twins = self.twins.get(
                (job.run.name, aim.steps, aim.seed),
                lambda: Stream(self._samples(Guidance(1.0), batch), job.evaluation.extractors),
            )
        found = job.evaluation.measure(samples, guidance.scale, twins)
        values = {value.metric: value for value in found.values}
        if aim.metric not in values:
            raise ValueError("; ".join([*found.problems, *found.unmeasured.values()]))
        outcomes = {k: (v.value, v.se or 0.0) for k, v in values.items() if k in aim.outcomes}
        own = values[aim.metric]
        return ScaleValue(guidance=guidance.scale, value=own.value, se=own.se, outcomes=outcomes)

    def _samples(self, guidance: Guidance, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        aim = self.job.aim
        return sampled(
            *self.loaded(), guidance, aim.steps, aim.seed, aim.samples,
            batch=batch, device=self.device,
        )  # fmt: skip


def tune(
    job: Job,
    experiment: Experiment,
    budget: int,
    *,
    batch: int,
    device: torch.device,
    reporter: Reporter = SILENT,
) -> Tuned:
    """Compute the missing trials up to `budget`, and write the best of all trials as the result.

    Processes that run the same search share its trials. Failed trials are tried again. A trial
    that diverged is worse than all others. UserError if no trial has a score.
    """
    folder = job.folder(experiment)
    images = len(job.aim.guidance) * job.aim.samples
    ready = cache(partial(loaded, job.run, device))
    batches = Batches(batch, reporter.note)
    trials = read_trials(folder)
    failed = [trial for trial in trials if trial.status == "failed"]
    budget = max(budget, len(trials))
    twins = Twins()
    target = None
    if (cfg := job.of_cfg()) is not None:
        baseline = TrialWork(
            what="CFG", path=trial_path(cfg.folder(experiment), 0),
            images=len(cfg.aim.guidance) * cfg.aim.samples, job=cfg, index=0,
            proposal=Proposal("default", cfg.space.origin, cfg.rule),
            device=device, loaded=ready, twins=twins,
        )  # fmt: skip
        target = _target(baseline, experiment, batches, reporter)

    def work(index: int, proposal: Proposal) -> TrialWork:
        found = best_trial(trials)
        so_far = f", best {shown(job.aim, found.score)}" if found else ""
        return TrialWork(
            what=f"trial {index + 1}{so_far}",
            path=trial_path(folder, index),
            images=images,
            job=job,
            index=index,
            proposal=proposal,
            target=target,
            device=device,
            loaded=ready,
            twins=twins,
        )

    done = (len(trials) - len(failed)) * images
    with reporter.bar(f"tune {job.name}", budget * images, done, shared=True) as bar:
        again = [work(trial.index, proposal_of(job.space, trial)) for trial in failed]
        execute(again, experiment, bar, batches, reporter.say)
        while True:
            trials = read_trials(folder)
            items: list[TrialWork] = []
            for index in range(len(trials), min(round_end(len(trials)), budget)):
                made = [*trials, *(item.trial("failed") for item in items)]
                proposal = propose(job.space, made, job.aim.seed)
                if proposal is None:
                    break
                items.append(work(index, proposal))
            if not items:
                break
            execute(items, experiment, bar, batches, reporter.say)
    return _result(job, trials, budget, experiment, target)


def _target(cfg: TrialWork, experiment: Experiment, batches: Batches, reporter: Reporter) -> Target:
    """What CFG reaches on the same seeds; measured once for all rules of a run."""
    with reporter.bar(f"measure {cfg.job.name}", cfg.images, 0, shared=True) as bar:
        execute([cfg], experiment, bar, batches, reporter.say)
    trial = read_trial(cfg.path)
    if trial.status != "ok":
        raise UserError(
            f"{cfg.job.name}, which settings are compared with, {trial.status}: {trial.reason}. "
            "Run the same command to try it again, or use --aim metric."
        )
    return make_target(cfg.job.aim, trial.values, cfg.job.aim.outcomes)


def _result(
    job: Job, trials: list[Trial], budget: int, experiment: Experiment, target: Target | None
) -> Tuned:
    card, best = job.run.card, best_trial(trials)
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
        outcome="" if target is None else target.outcome,
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
