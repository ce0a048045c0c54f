"""`bench import`: turns a checkpoint of another program into a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.experiment.place import DEFAULT_EXPERIMENT, DEFAULT_RESULTS
from bench.system.errors import UserError, counted

if TYPE_CHECKING:
    from bench.system.progress import Reporter
    from bench.training.importing.plan import Import


def import_command(
    file: Annotated[Path, typer.Argument(help="A file of weights, or a folder of diffusers.")],
    name: Annotated[str, typer.Option("--as", help="Name of the run's folder.")],
    method: Annotated[
        str | None, typer.Option("--method", "-m", help="Method; by default from the class name.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Data set; by default from its size.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Entry of the network to take, if the file has several."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting of the method, such as s_churn=40; repeatable."),
    ] = None,
    null_label: Annotated[
        bool | None,
        typer.Option(
            "--null-label/--no-null-label",
            help="Whether labels were dropped in training; default: as in the file.",
        ),
    ] = None,
    decoder: Annotated[
        Path | None,
        typer.Option("--decoder", help="Folder of the AutoencoderKL that makes images of latents."),
    ] = None,
    experiment: options.ExperimentName = DEFAULT_EXPERIMENT,
    results: options.Results = DEFAULT_RESULTS,
    plugin: options.Plugins = None,
    dry_run: options.DryRun = False,
) -> None:
    """Import a checkpoint of another program as a run; no code in it is run."""
    from bench.experiment.suite import flags
    from bench.system.files import tidy
    from bench.system.leases import tidy_leases
    from bench.training.card import CARD, WEIGHTS, check_claim, parse_overrides, write_card
    from bench.training.checkpoint import save_weights
    from bench.training.importing.plan import plan_import
    from bench.training.lock import lock_folder

    reporter, found = options.begin(plugin, results, experiment)
    planned = plan_import(
        file, name, method=method, dataset=dataset, null_label=null_label, key=key,
        settings=parse_overrides(settings or ()), decoder=decoder,
    )  # fmt: skip
    folder = found.runs / name
    check_claim(folder, planned.card)
    _describe(reporter, planned, file)
    if dry_run:
        reporter.say("Nothing was written.")
        return
    tidy(folder)
    tidy_leases(folder)
    there = (folder / CARD).exists() and (folder / WEIGHTS).exists()
    if there and _has_decoder(folder, planned):
        reporter.say(f"Already imported into {folder}.")
    else:
        with lock_folder(folder, name):
            check_claim(folder, planned.card)  # another process may have been first
            if planned.decoder is not None:
                planned.decoder.copy(folder)
            # The card is written last: a folder without one is not a run.
            save_weights(folder / WEIGHTS, planned.found.tensors)
            write_card(folder, planned.card)
        reporter.say(f"Imported into {folder}.")
    reporter.say(f"Next: bench sweep --method {planned.card.method}{flags(found)}")


def _has_decoder(folder: Path, planned: Import) -> bool:
    """Whether the decoder of an import, if it has one, is in the run's folder."""
    from bench.data.decoder import FOLDER, DecoderSource

    wanted = planned.decoder
    if wanted is None or wanted.folder is None:
        return True
    there = DecoderSource(wanted.name, folder / FOLDER)
    if there.is_there and there.hash != wanted.hash:
        raise UserError(
            f"Run {planned.card.name!r} has another decoder: import it again under another --as."
        )
    return there.is_there


def _describe(reporter: Reporter, planned: Import, path: Path) -> None:
    card, found, network = planned.card, planned.found, planned.architecture
    held = f"class {found.class_name}" if found.class_name else "a state dict"
    entry = f" under {found.key!r}" if found.key else ""
    reporter.say(f"{path}: {held}{entry}, SHA-256 {card.init_checkpoint}")
    reporter.say(f"licence: {found.licence or 'not stated'}")
    for note in found.notes:
        reporter.say(note)
    reporter.say(f"run {card.name}: method {card.method}, data set {card.dataset}")
    classes, guided = network.num_classes, network.guidance_dim
    augment = getattr(network.net, "augment_dim", 0)
    reporter.say(
        f"network: {network.about}, images {network.shape}, "
        + (counted(classes, "class") if classes else "unconditional")
        + (f", guidance embedding of {guided}" if guided else "")
        + (f", {augment} augmentation labels" if augment else ""),
    )
    reporter.say(
        f"{planned.parameters:,} parameters; all {len(found.tensors)} tensors match by name and "
        "shape.",
    )
    if "schedule" in card.config:
        c = card.config
        reporter.say(
            f"prediction: {c['prediction']}, noise levels "
            + (
                f"{c['sigma_min']:.4g} to {c['sigma_max']:.4g}, times {c['timesteps']}"
                if c["times"] == "grid"
                else "of the scheduler's times"
            )
        )
    if planned.warning:
        reporter.warn(planned.warning)
    if planned.decoder is not None:
        shape = planned.decoder.image_shape(network.shape)
        reporter.say(f"decoder: {planned.decoder.name}, images {shape}")
    elif card.config.get("decoder"):
        reporter.say(
            f"Its samples are latents. Pixels need the decoder {card.config['decoder']!r}: import "
            "it again with --decoder FOLDER; --set decoder= says that they are pixels."
        )
    if card.method == "edm2" and card.config["null_label"] is False:
        reporter.say(
            "EDM2's networks were trained without dropped labels, so this run has no null label "
            "and cannot be guided by itself. Sweep it with --null-checkpoint or, for "
            "autoguidance, --weak-checkpoint."
        )
    elif card.method == "diffusers" and card.config["null_label"] is False:
        reporter.say(
            "None of its class embeddings is known to be for no class, so it cannot be guided by "
            "itself. Sweep it with --null-checkpoint or, if the last one is, import it with "
            "--null-label."
        )
    elif card.config.get("null_label") is False:
        reporter.say(
            "The file does not say that labels were dropped in training; in EDM's own files they "
            "were not. So this run has no null label and cannot be guided by itself. Sweep it with "
            "--null-checkpoint or, if labels were dropped, import it with --null-label."
        )
