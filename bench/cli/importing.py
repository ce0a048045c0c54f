"""`bench import`: a file of another program becomes a run."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bench.cli.console import flags
from bench.experiment.place import Experiment
from bench.system.claims import tidy_claims
from bench.system.files import tidy
from bench.system.progress import say
from bench.training.checkpoint import save_weights
from bench.training.importing.plan import Import, plan_import
from bench.training.lock import lock_folder
from bench.training.runs import CARD, WEIGHTS, check_claim, write_card


def import_file(
    console: Console,
    place: Experiment,
    path: Path,
    name: str,
    *,
    method: str | None,
    dataset: str | None,
    null_label: bool | None,
    dry_run: bool,
) -> None:
    """Import `path` as the run `name`; the same command again changes nothing."""
    planned = plan_import(path, name, method=method, dataset=dataset, null_label=null_label)
    folder = place.runs / name
    check_claim(folder, planned.card)
    _describe(console, planned, path)
    if dry_run:
        say(console, "Nothing was written.")
        return
    tidy(folder)
    tidy_claims(folder)
    if (folder / CARD).exists() and (folder / WEIGHTS).exists():
        say(console, f"It is imported already, in {folder}.")
    else:
        with lock_folder(folder, name):
            check_claim(folder, planned.card)  # another process may have come first
            # The card comes last: a folder without one is no run.
            save_weights(folder / WEIGHTS, planned.found.tensors)
            write_card(folder, planned.card)
        say(console, f"Imported into {folder}.")
    say(console, f"Next: bench sweep --method {planned.card.method}{flags(place)}")


def _describe(console: Console, planned: Import, path: Path) -> None:
    card, found, net = planned.card, planned.found, planned.architecture.net
    held = f"class {found.class_name}" if found.class_name else "a state dict"
    entry = f" under {found.key!r}" if found.key else ""
    say(console, f"{path}: {held}{entry}, SHA-256 {card.init_checkpoint}")
    say(console, f"run {card.name}: method {card.method}, data set {card.dataset}")
    shape, classes = planned.architecture.shape, planned.architecture.num_classes
    guided = planned.architecture.guidance_dim
    say(
        console,
        f"network: {net.arch}, {net.channels} channels x {list(net.channel_mult)}, "
        f"{net.num_blocks} blocks, attention at {list(net.attn_resolutions)}, images {shape}, "
        + (f"{classes} classes" if classes else "unconditional")
        + (f", guidance embedding of {guided}" if guided else "")
        + (f", {net.augment_dim} augmentation labels" if net.augment_dim else ""),
    )
    say(
        console,
        f"{planned.parameters:,} parameters; all {len(found.tensors)} tensors match by name and "
        "shape.",
    )
    if card.config.get("null_label") is False:
        say(
            console,
            "The file does not say that labels were dropped in its training, as EDM's own were not:"
            " it is taken to know no label of no class and takes no guidance by itself. Sweep it "
            "with --null-checkpoint or, if labels were dropped, import it with --null-label.",
        )
