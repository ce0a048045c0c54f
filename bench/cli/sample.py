"""`bench sample`: writes samples of one run at one guidance scale to files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.experiment.place import (
    DEFAULT_EXPERIMENT,
    DEFAULT_RESULTS,
    SAMPLES_MOST,
    SEED_MOST,
    STEPS_MOST,
)
from bench.system.errors import UserError, counted, told, unknown

if TYPE_CHECKING:
    from bench.experiment.suite import Study
    from bench.training.run import Run


def sample_command(
    run: options.OneRun = None,
    model: options.OneModel = None,
    method: options.OneMethod = None,
    dataset: options.OneDataset = None,
    guidance: Annotated[
        float, typer.Option("--guidance", "-g", help="Guidance scale; 1 is off.")
    ] = 1.0,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=STEPS_MOST, help="Sampling steps; by default the preset's first."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=SEED_MOST, help="Sampling seed.")] = 0,
    samples: Annotated[
        int, typer.Option("--samples", "-n", min=1, max=SAMPLES_MOST, help="Number of samples.")
    ] = 64,
    class_: Annotated[
        list[str] | None,
        typer.Option("--class", "-c", help="Only this class, by name or index; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder, .zip, .npz or .png (a grid); by default below the experiment.",
        ),
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="png, zip, npz or grid; by default from --out.")
    ] = None,
    batch: options.Batch = 256,
    labels: options.SampleLabels = None,
    sampler: options.SamplerName = "heun",
    grid: options.GridName = "edm",
    rule: options.OneRule = None,
    knob: options.Knobs = None,
    tuned: options.Tuned = False,
    null_checkpoint: options.NullCheckpoint = None,
    weak_checkpoint: options.WeakCheckpoint = None,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
    device: options.Device = "auto",
    plugin: options.Plugins = None,
) -> None:
    """Write samples of one run to files, the same ones that a sweep measures."""
    from bench.data.samples import write
    from bench.experiment.rules import parse_knobs, parse_rules
    from bench.experiment.suite import Study
    from bench.inversion.find import class_index
    from bench.plugins.load import model_method
    from bench.sweep.cells import expand
    from bench.sweep.decoded import loaded
    from bench.sweep.generate import Diverged
    from bench.sweep.plan import UNFINISHED, sampler_of
    from bench.sweep.sampler import sampled
    from bench.sweep.saving import batch_start, make_sample_card, sample_path
    from bench.system.devices import resolve_device
    from bench.system.failures import explain_failure
    from bench.training.card import dataset_or_stand_in
    from bench.training.extra_network import find_extra_networks
    from bench.training.run import find_run, open_run, refuse_unused
    from bench.tuning.subject import rules_for

    if model is not None:
        if run or method:
            raise UserError("--model is sampled instead of a run: drop --run and --method.", code=2)
        plugin = [*(plugin or ()), *options.model_files([model], [dataset] if dataset else [])]
    reporter, found = options.begin(plugin, results, experiment, out=out)
    if model is not None:
        method = model_method(model)
    if format_ is not None and format_ not in write.FORMATS:
        raise unknown("format", format_, write.FORMATS)
    if not math.isfinite(guidance):
        raise UserError(f"--guidance must be a finite number, got {guidance}.", code=2)
    options.check_sampling(labels, sampler, grid)
    if class_ and labels is not None:
        raise UserError("--class and --labels exclude each other: drop one.", code=2)
    options.note_scales([guidance], reporter)
    where = resolve_device(device)
    card = find_run(found, run, method, dataset)
    data = dataset_or_stand_in(card)
    ready = open_run(card, data, found)
    if ready is None:
        raise UserError(f"Run {card.name!r} cannot be sampled: {UNFINISHED}.")
    data = ready.data
    networks = find_extra_networks(found, null=null_checkpoint, weak=weak_checkpoint)
    refuse_unused(networks, [ready])
    ready = ready.join(*networks)
    chosen = None
    if class_:
        indices = [class_index(text, data, "--class") for text in class_]
        chosen = tuple(dict.fromkeys(indices))
    study = Study(
        dataset="", methods=(), tuned=tuned,
        rules=parse_rules(None if rule is None else [rule]), knobs=parse_knobs(knob or ()),
        labels=labels, sampler=sampler, grid=grid,
    )  # fmt: skip
    _check_rule(study, ready, guidance)
    wanted = sampler_of(study)
    if ready.method.takes_samplers:
        ready = replace(ready, method=ready.method.with_sampler(wanted))
    rules = rules_for(study, ready, found, reporter.say)
    (cell,) = expand(
        ready, [guidance], [steps or card.steps[0]], [seed], samples, rules,
        labels=study.sample_labels, sampler=wanted,
    )  # fmt: skip
    if cell.skip:
        raise UserError(f"{card.name} cannot be sampled so: {cell.skip}.", code=2)
    usual = "png" if data.spec.is_image else "npz"
    kind = format_ or (usual if out is None else write.guess_format(out))
    path = sample_path(found, cell, kind) if out is None else out
    about = make_sample_card(cell, data, chosen)
    write.check_format(kind, about)
    start = batch_start(write.first_missing(path, kind, about), samples, batch)
    if start >= samples:
        reporter.say(f"{counted(samples, 'sample')} of {card.name} already in {path}.")
        return
    with (
        write.SampleWriter(path, kind, about, start) as writer,
        reporter.bar(f"sample {card.name}", samples, start) as bar,
    ):
        try:
            stream = sampled(
                *loaded(ready, where), cell.guidance, cell.steps,
                seed, samples, batch=batch, device=where, start=start,
                classes=chosen or cell.classes,
            )  # fmt: skip
            for x, of_class in stream:
                writer.add(x, of_class)
                bar.update(writer.seen)
        except Diverged as error:
            writer.discard()
            raise UserError(
                f"Sampling {card.name} at guidance {guidance:g} diverged: {error}; "
                "nothing was kept."
            ) from None
        except (UserError, OSError):
            raise
        except Exception as error:  # a method, perhaps a plugin's, may fail in any way
            why = explain_failure(error) or f"{told(error)}."
            raise UserError(f"Sampling {card.name} failed: {why}") from None
    how = f"guidance {guidance:g}" + (f" by {cell.rule}" if cell.rule else "")
    reporter.say(
        f"{counted(samples, 'sample')} of {card.name} at {how}, {cell.nfe} NFE each: {path}"
    )


def _check_rule(study: Study, ready: Run, guidance: float) -> None:
    """UserError if --rule names no rule, more than one, or one that would do nothing."""
    from bench.experiment.rules import no_rules, study_rules
    from methods.rules import CFG

    study_rules(study)
    if len(study.rules) > 1:
        raise UserError(f"bench sample takes one --rule, got {', '.join(study.rules)}.", code=2)
    (name,) = study.rules
    if name == CFG.name:
        return
    if (reason := no_rules(type(ready.method))) is not None:
        raise UserError(f"--rule {name}: {reason}.", code=2)
    if guidance == 1:
        message = f"At guidance 1 no rule acts: give another --guidance for {name!r}."
        raise UserError(message, code=2)
