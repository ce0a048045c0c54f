"""`bench sample`: samples of one run at one guidance scale as files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from bench.data import Dataset
from bench.data.find import find_dataset
from bench.data.samples.card import class_names
from bench.data.samples.write import FORMATS, check_format, first_missing, guess_format, open_sink
from bench.experiment.place import Experiment
from bench.experiment.rules import parse_knobs, parse_rules, study_rules
from bench.experiment.suite import Study
from bench.sweep.cells import Cell, expand
from bench.sweep.plan import UNFINISHED
from bench.sweep.run import Diverged, generate
from bench.sweep.saving import batch_start, make_sample_card, sample_path
from bench.system.devices import resolve_device
from bench.system.errors import UserError, unknown
from bench.system.failures import explain_failure
from bench.system.progress import Bar
from bench.training.extra_network import find_extra_networks
from bench.training.run import Run, load_nets, open_run, refuse_unused
from bench.training.runs import (
    RunCard,
    dataset_or_stand_in,
    make_card,
    method_class,
    trained_runs,
    unregistered,
)
from bench.tuning.subject import rules_for
from methods import METHODS
from methods.rules import CFG

LISTED = 20


def sample_all(
    console: Console,
    place: Experiment,
    *,
    run: str | None,
    method: str | None,
    dataset_name: str | None,
    guidance: float,
    steps: int | None,
    seed: int,
    n: int,
    classes: Sequence[str],
    out: Path | None,
    kind: str | None,
    batch: int,
    device: str,
    rule: str | None = None,
    knobs: Sequence[str] = (),
    tuned: bool = False,
    null_checkpoint: str | None = None,
    weak_checkpoint: str | None = None,
) -> None:
    """`bench sample`: the samples of a sweep's cell, or some classes only, to `out`."""
    if kind is not None and kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    if not math.isfinite(guidance):
        raise UserError(f"--guidance must be a finite number, got {guidance}.", code=2)
    where = resolve_device(device)
    card = find_run(place, run, method, dataset_name)
    data = dataset_or_stand_in(card)
    ready = open_run(card, data, place)
    if ready is None:
        raise UserError(f"Run {card.name!r} cannot be sampled: {UNFINISHED}.")
    seconds = find_extra_networks(place, null=null_checkpoint, weak=weak_checkpoint)
    refuse_unused(seconds, [ready])
    ready = ready.join(*seconds)
    chosen = parse_classes(classes, data) if classes else None
    say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
    study = Study(
        dataset="",
        methods=(),
        rules=parse_rules(None if rule is None else [rule]),
        knobs=parse_knobs(knobs),
        tuned=tuned,
    )
    _check_rule(study, ready, guidance)
    rules = rules_for(study, ready, place, say)
    (cell,) = expand(ready, [guidance], [steps or card.steps[0]], [seed], n, rules)
    if cell.skip:
        raise UserError(f"{card.name} cannot be sampled so: {cell.skip}.", code=2)
    if kind is None:
        kind = ("png" if data.spec.is_image else "npz") if out is None else guess_format(out)
    path = sample_path(place, cell, kind) if out is None else out
    about = make_sample_card(cell, data, chosen)
    check_format(kind, about)
    start = batch_start(first_missing(path, kind, about), n, batch)
    if start >= n:
        say(f"{n:,} samples of {card.name} are already there: {path}")
        return
    _write(console, ready, cell, chosen, path, kind, start, batch=batch, device=where)
    how = f"guidance {guidance:g}" + (f" by {cell.rule}" if cell.rule else "")
    say(f"{n:,} samples of {card.name} at {how}, {cell.nfe} NFE each: {path}")


def _check_rule(study: Study, ready: Run, guidance: float) -> None:
    """UserError where the rule of --rule does not exist, is not one, or would do nothing."""
    study_rules(study)
    if len(study.rules) > 1:
        raise UserError(f"bench sample takes one --rule, got {', '.join(study.rules)}.", code=2)
    (name,) = study.rules
    if name == CFG.name:
        return
    if not ready.method.takes_rules:
        own = "takes no guidance" if ready.method.guidance == "none" else "has guidance of its own"
        raise UserError(
            f"--rule is for methods that are guided at sampling; {ready.card.method} {own}.",
            code=2,
        )
    if guidance == 1:
        raise UserError(
            f"At guidance 1 no rule acts: give --guidance a scale for {name!r}.", code=2
        )


def _write(
    console: Console,
    ready: Run,
    cell: Cell,
    chosen: Sequence[int] | None,
    path: Path,
    kind: str,
    start: int,
    *,
    batch: int,
    device: torch.device,
) -> None:
    about = make_sample_card(cell, ready.data, chosen)
    title = f"sample {cell.run.name}"
    with (
        open_sink(path, kind, about, start) as sink,
        Bar(title, cell.n, start, console) as bar,
    ):
        try:
            stream = generate(
                ready.method, load_nets(ready, device), cell.guidance, cell.steps, cell.seed,
                cell.n, batch=batch, device=device, start=start, classes=chosen,
            )  # fmt: skip
            for x, labels in stream:
                sink.add(x, labels)
                bar.update(sink.seen)
        except Diverged as error:
            sink.discard()
            raise UserError(
                f"Sampling {cell.run.name} at guidance {cell.guidance.scale:g} diverged: {error}; "
                "nothing was kept."
            ) from None
        except (UserError, OSError):
            raise
        except Exception as error:  # the code of a method may fail in any way
            why = explain_failure(error) or f"{type(error).__name__}: {error}."
            raise UserError(f"Sampling {cell.run.name} failed: {why}") from None


def find_run(
    place: Experiment, run: str | None, method: str | None, dataset_name: str | None
) -> RunCard:
    """The run by name, or the only one that fits method and data set; UserError otherwise."""
    cards = trained_runs(place)
    if run is not None:
        found = [card for card in cards if card.name == run]
        if not found:
            if not cards:
                raise UserError(f"There is no run in {place.runs}: bench train --method igct.")
            raise unknown("run", run, [card.name for card in cards])
        (card,) = found
        for option, given, own in (
            ("--method", method, card.method),
            ("--dataset", dataset_name, card.dataset),
        ):
            if given not in (None, own):
                raise UserError(f"Run {run!r} has {own!r}, not {option} {given!r}.", code=2)
        return _usable(card)
    if method is not None and not method_class(method).trains:
        return _untrained(method, dataset_name)
    if dataset_name is not None and not any(card.dataset == dataset_name for card in cards):
        find_dataset(dataset_name)
    found = [
        card
        for card in cards
        if method in (None, card.method) and dataset_name in (None, card.dataset)
    ]
    if len(found) == 1:
        return _usable(found[0])
    if not found:
        asked = f" of {method}" if method else ""
        asked += f" on {dataset_name}" if dataset_name else ""
        raise UserError(
            f"There is no run{asked} in {place.runs}: bench train --method {method or 'igct'}."
        )
    names = ", ".join(card.name for card in found)
    raise UserError(f"Several runs fit; name one with --run: {names}.", code=2)


def _usable(card: RunCard) -> RunCard:
    reason = None if card.shape and card.method in METHODS else unregistered(card)
    if reason is not None:
        raise UserError(f"Run {card.name!r} cannot be sampled: {reason}.")
    return card


def _untrained(method: str, dataset_name: str | None) -> RunCard:
    presets = method_class(method).presets
    names = sorted({preset.dataset for preset in presets.values()})
    if dataset_name is None and len(names) != 1:
        raise UserError(
            f"{method} is for several data sets; name one with --dataset: {', '.join(names)}.",
            code=2,
        )
    return make_card(method, data=find_dataset(dataset_name or names[0]))


def parse_classes(asked: Sequence[str], data: Dataset) -> tuple[int, ...]:
    """Class names or indices to indices, in their order; UserError for one that does not exist."""
    names = class_names(data, data.spec)
    found = []
    for text in asked:
        if text in names:
            found.append(names.index(text))
        elif text.isdecimal() and int(text) < len(names):
            found.append(int(text))
        elif len(names) <= LISTED:
            raise unknown(f"class of {data.name}", text, names)
        else:
            raise UserError(
                f"Unknown class of {data.name} {text!r}: it has {len(names)} classes, from 0, "
                f"{names[0]!r}, to {len(names) - 1}, {names[-1]!r}.",
                code=2,
            )
    return tuple(dict.fromkeys(found))
