"""The commands that write images: sample, invert and edit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.experiment.place import (
    DEFAULT_EXPERIMENT,
    DEFAULT_RESULTS,
)

if TYPE_CHECKING:
    pass

from bench.cli.options import (
    DeviceOption,
    ExperimentOption,
    KnobOption,
    NullOption,
    PluginOption,
    ResultsOption,
    RuleOption,
    TunedOption,
    WeakOption,
    begin,
)

RunOption = Annotated[
    str | None, typer.Option("--run", help="Trained run; by default the only one that inverts.")
]
OneMethodOption = Annotated[
    str | None, typer.Option("--method", "-m", help="Method, to choose the run.")
]
OneDatasetOption = Annotated[
    str | None, typer.Option("--dataset", "-d", help="Data set, to choose the run.")
]
FilesArgument = Annotated[
    list[Path] | None,
    typer.Argument(help="Image files of the model's size; none: the reference split."),
]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder of the results; by default the experiment's.")
]
ImagesOption = Annotated[
    int, typer.Option("--samples", "-n", min=1, help="Images of the reference split.")
]
BatchOption = Annotated[int, typer.Option(min=1, help="Images at a time; changes no result.")]


def sample_command(
    run: Annotated[str | None, typer.Option(help="Run of the experiment, by its name.")] = None,
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="Instead: the only run of a method.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Instead: the only run on a data set.")
    ] = None,
    guidance: Annotated[
        float, typer.Option("--guidance", "-g", help="Guidance scale; 1 is off.")
    ] = 1.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Sampling steps; by default the preset's first.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Sampling seed.")] = 0,
    samples: Annotated[int, typer.Option("--samples", "-n", min=1, help="How many.")] = 64,
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
    batch: Annotated[int, typer.Option(min=1, help="Samples at a time; changes no result.")] = 256,
    rule: RuleOption = None,
    knob: KnobOption = None,
    tuned: TunedOption = False,
    null_checkpoint: NullOption = None,
    weak_checkpoint: WeakOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    plugin: PluginOption = None,
) -> None:
    """Write the samples of one run to files: exactly those that a sweep measures."""
    from bench.cli.sample import sample_all

    console, place = begin(plugin, results, experiment, out)
    sample_all(
        console,
        place,
        run=run,
        method=method,
        dataset_name=dataset,
        guidance=guidance,
        steps=steps,
        seed=seed,
        n=samples,
        classes=class_ or [],
        out=out,
        kind=format_,
        batch=batch,
        device=device,
        rule=rule,
        knobs=knob or (),
        tuned=tuned,
        null_checkpoint=null_checkpoint,
        weak_checkpoint=weak_checkpoint,
    )


def invert_command(
    files: FilesArgument = None,
    run: RunOption = None,
    method: OneMethodOption = None,
    dataset: OneDatasetOption = None,
    label: Annotated[
        str | None, typer.Option("--class", help="Class of the images, by name or index.")
    ] = None,
    samples: ImagesOption = 100,
    out: OutOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    batch: BatchOption = 256,
    plugin: PluginOption = None,
) -> None:
    """Map images to latents and back: latents, reconstructions and how close they are."""
    from bench.cli.invert import invert_all

    console, place = begin(plugin, results, experiment, out)
    invert_all(
        console,
        place,
        files=files or (),
        run=run,
        method=method,
        dataset_name=dataset,
        label=label,
        samples=samples,
        out=out,
        device=device,
        batch=batch,
    )


def edit_command(
    source_class: Annotated[
        str, typer.Option(help="Class that the images have, by name or index.")
    ],
    target_class: Annotated[
        list[str], typer.Option(help="Class to edit to; repeat for several, or 'all'.")
    ],
    files: FilesArgument = None,
    guidance: Annotated[
        str, typer.Option("--guidance", "-g", help="Scales, a range such as 1,7,13; 1 is off.")
    ] = "1",
    run: RunOption = None,
    method: OneMethodOption = None,
    dataset: OneDatasetOption = None,
    samples: ImagesOption = 100,
    out: OutOption = None,
    experiment: ExperimentOption = DEFAULT_EXPERIMENT,
    results: ResultsOption = DEFAULT_RESULTS,
    device: DeviceOption = "auto",
    batch: BatchOption = 256,
    plugin: PluginOption = None,
) -> None:
    """Invert images of one class and sample them as another."""
    from bench.cli.invert import edit_all

    console, place = begin(plugin, results, experiment, out)
    edit_all(
        console,
        place,
        files=files or (),
        source_class=source_class,
        target_classes=target_class,
        guidance=guidance,
        run=run,
        method=method,
        dataset_name=dataset,
        samples=samples,
        out=out,
        device=device,
        batch=batch,
    )
