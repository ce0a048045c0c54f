"""The cells of a sweep and the keys that identify them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.data import Dataset
from bench.data.decoder import DecoderSource
from bench.experiment.identity import code_hash, digest
from bench.experiment.rows import KnobsFrom, Labels
from bench.experiment.rules import ChosenRule, no_rules
from bench.sweep.generate import generate
from bench.system.errors import UserError, told
from bench.training.extra_network import Role
from bench.training.run import Run
from methods import Guidance
from methods.rng import derive_seed
from methods.rules import CFG
from methods.rules.needs import needs
from methods.samplers import USUAL, Sampler


@dataclass(frozen=True)
class Cell:
    """One checkpoint at one guidance scale, number of steps and sampling seed.

    `skip` is the reason why the method cannot sample it, or ''.
    """

    run: Run
    guidance: Guidance
    steps: int
    seed: int
    n: int
    nfe: int
    skip: str
    key: str
    code: str = ""
    """SHA-256 of the code of method and sampling."""
    rule_code: str = ""
    """SHA-256 of the code of the rule, '' for CFG or if guidance is off."""
    null_checkpoint: str = ""
    """SHA-256 of the weights of an extra network that this cell's guidance uses, or ''."""
    weak_checkpoint: str = ""
    """SHA-256 of the weights of a weaker network that this cell's rule uses, or ''."""
    nfe_weighted: float = 0.0
    knobs_from: KnobsFrom = ""
    """Where the rule's settings come from; not part of the key."""
    only_matched: bool = False
    """Whether it is run only for comparisons at equal outcome or cost; not part of the key."""

    labels: Labels = "balanced"
    sampler: Sampler = USUAL

    @property
    def classes(self) -> tuple[int, ...] | None:
        """The classes that the samples have in turn; None for all of them."""
        if self.labels == "balanced":
            return None
        return tuple(sample_classes(self.labels, self.run.data, self.seed, self.n).tolist())

    @property
    def rule(self) -> str:
        """Name of the guidance rule, '' for CFG or if guidance is off."""
        return rule_name(self.guidance)

    @property
    def what(self) -> str:
        """The name of the cell in progress and errors."""
        rule = f" {self.rule}" if self.rule else ""
        return f"{self.run.name}{rule} g={self.guidance.scale:g} steps={self.steps}"

    def about(self) -> dict[str, Any]:
        """The fields of a row that describe its samples; new ones belong here and in `Row`."""
        run, card = self.run, self.run.card
        return {
            "key": self.key,
            "dataset": card.dataset,
            "data_hash": card.data_hash or run.data.train.hash,
            "method": card.method,
            "run": run.name,
            "train_seed": card.seed,
            "checkpoint": run.checkpoint,
            "null_checkpoint": self.null_checkpoint,
            "weak_checkpoint": self.weak_checkpoint,
            "decoder": run.decoder_hash,
            "code": self.code,
            "rule_code": self.rule_code,
            "guidance": self.guidance.scale,
            "rule": self.rule,
            "knobs": self.guidance.rule.settings() if self.rule else {},
            "knobs_from": self.knobs_from,
            "steps": self.steps,
            "nfe": self.nfe,
            "nfe_weighted": self.nfe_weighted,
            "seed": self.seed,
            "only_matched": self.only_matched,
            "labels": self.labels,
            "sampler": self.sampler.solver,
            "grid": self.sampler.grid,
            "n": self.n,
        }


def expand(
    run: Run,
    guidance: Sequence[float],
    steps: Sequence[int] | None,
    seeds: Sequence[int],
    samples: int,
    rules: Sequence[ChosenRule] = (),
    *,
    labels: Labels = "balanced",
    sampler: Sampler = USUAL,
) -> list[Cell]:
    """All cells of a run, skipped ones included.

    `sampler` is that of the run's method (`Method.with_sampler`), if it follows any. Methods that
    are guided at sampling get one cell per rule, by default CFG. It is skipped if the method has a
    loop of its own. A scale of 1 has one cell for all rules that do not act there.
    """
    chosen = rules if rules and run.method.guidance == "sampling" else (ChosenRule(CFG()),)
    cells: dict[str, Cell] = {}
    for seed, count, choice, scale in product(seeds, steps or run.card.steps, chosen, guidance):
        cell = _cell(run, Guidance(scale, choice.rule), count, seed, samples, labels, sampler)
        cell = replace(cell, knobs_from=choice.knobs_from if cell.rule else "")
        cells.setdefault(cell.key, cell)
    return list(cells.values())


def rule_name(guidance: Guidance) -> str:
    """The rule in the row of this guidance, '' for CFG or if no rule acts."""
    return guidance.rule.name if guidance.acts and guidance.rule.name != CFG.name else ""


def sample_classes(labels: Labels, data: Dataset, seed: int, n: int) -> npt.NDArray[np.int64]:
    """Classes (n,) of samples: "random" ones depend on (seed, index), others on the index only."""
    if labels == "reference":
        given = data.reference.labels.numpy()
        if not len(given):
            raise UserError(f"--labels reference: {data.name!r} has no reference with classes.")
        return np.asarray(given[np.arange(n) % len(given)])
    if labels == "random":
        # The legacy generator, whose stream is frozen: another version of numpy draws the same.
        rng = np.random.RandomState(derive_seed("classes", seed) % 2**32)
        return rng.randint(data.spec.num_classes, size=n, dtype=np.int64)
    return np.arange(n) % data.spec.num_classes


def _cell(
    run: Run, guidance: Guidance, steps: int, seed: int, n: int, labels: Labels, sampler: Sampler
) -> Cell:
    try:
        of_rule = no_rules(type(run.method)) if rule_name(guidance) else None
        reason = run.undecoded or of_rule or run.method.supports(guidance, steps) or ""
        if not (sampler.is_usual or run.method.takes_samplers):
            reason = f"{run.card.method} has its own sampler"
        nfe = 0 if reason else int(run.method.nfe(guidance, steps))
        cost = 0.0 if reason else float(run.method.nfe_weighted(guidance, steps))
        branches = needs(guidance)
    except UserError:
        raise
    except Exception as error:  # the code of a plugin may fail in any way
        rule = f" under the rule {guidance.rule.name!r}" if rule_name(guidance) else ""
        raise UserError(
            f"Method {run.card.method!r} cannot say what it does{rule} at guidance "
            f"{guidance.scale:g} with {steps} steps: {told(error)}."
        ) from None
    # If a branch is not evaluated, its network does not change the row.
    roles: tuple[Role, ...] = ("null", "weak")
    found = {f"{role}_checkpoint": run.extra_checkpoint(role) for role in roles if role in branches}
    networks = {name: checkpoint for name, checkpoint in found.items() if checkpoint}
    extra: dict[str, Any] = dict(networks)
    rule_code = ""
    if rule_name(guidance):
        kinds: list[type] = [type(part) for part in guidance.rule.parts()]
        parts = [code_hash(kind) for kind in kinds]
        rule_code = digest({"parts": parts})
        extra["rule"] = {
            "name": guidance.rule.name,
            "knobs": guidance.rule.settings(),
            "code": parts,
        }
    code = {
        "code": code_hash(type(run.method)),
        "sampling": code_hash(generate),
    }
    if labels != "balanced":
        extra["labels"] = labels, run.data.reference.hash if labels == "reference" else ""
    if run.decoder_hash:
        extra["decoder"] = run.decoder_hash, code_hash(DecoderSource)
    if not sampler.is_usual:
        extra["sampler"] = sampler.solver, sampler.grid
    key = digest(
        {
            "method": run.card.method,
            "config": run.card.config,
            "data": run.card.data_hash,
            "checkpoint": run.checkpoint,
            "guidance": guidance.scale,
            "steps": steps,
            "seed": seed,
            "n": n,
        }
        | code
        | extra
    )
    return Cell(
        run=run,
        guidance=guidance,
        steps=steps,
        seed=seed,
        n=n,
        nfe=nfe,
        skip=reason,
        key=key,
        code=digest(code),
        rule_code=rule_code,
        nfe_weighted=cost,
        labels=labels,
        sampler=sampler,
        null_checkpoint=networks.get("null_checkpoint", ""),
        weak_checkpoint=networks.get("weak_checkpoint", ""),
    )
