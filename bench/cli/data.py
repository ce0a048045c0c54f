"""`bench data`: prepared data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.system.errors import UserError, counted, unknown

if TYPE_CHECKING:
    from bench.data.card import DataCard
    from bench.data.latents import LatentsOf
    from bench.data.statistics_only import StatisticsOf

data_app = typer.Typer(help="Prepare data sets from archives and folders.", no_args_is_help=True)

DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        help="Folder of all prepared sets; by default $GUIDANCE_BENCH_DATA or a cache folder.",
    ),
]


@data_app.command("prepare")
def prepare_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Archive or folder of images, batches or latents, or a statistics file."
        ),
    ],
    dataset: Annotated[
        str | None, typer.Option("--dataset", "-d", help="Name; by default that of the source.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Resize images to size x size.")
    ] = None,
    crop: Annotated[str, typer.Option(help="With --size: center or none.")] = "center",
    resize: Annotated[str, typer.Option(help="With --size: box or bicubic.")] = "box",
    orient: options.Orient = True,
    mode: Annotated[
        str | None, typer.Option(help="rgb or grey; by default grey if all images are, else rgb.")
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(help="For latents: sd-vae, edm2-vae or vae with its folder, as NAME=FOLDER."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="For latents: the data set of their images.")
    ] = None,
    classes: Annotated[
        int, typer.Option(min=1, max=1 << 20, help="For a statistics file: number of classes.")
    ] = 1000,
    data_root: DataRootOption = None,
) -> None:
    """Prepare a data set once, so that training starts fast and reads only what it needs."""
    from typing import get_args

    from bench.data.card import DATA_FOLDER_VARIABLE, name_of
    from bench.data.decode import MODES, Crop, Geometry, Resize
    from bench.data.ensure import ensure
    from bench.training.presets import described_choice
    from methods.spec import DataSpec

    reporter, _ = options.begin()
    for option, value, allowed in (("crop", crop, Crop), ("resize", resize, Resize)):
        if value not in get_args(allowed):
            raise unknown(option, value, get_args(allowed))
    if mode is not None and mode not in MODES:
        raise unknown("mode", mode, MODES)
    channels = MODES[mode] if mode else None
    geometry = Geometry(size, crop, resize, orient, channels)  # type: ignore[arg-type]  # checked above
    if size is None and (crop, resize) != (Geometry.crop, Geometry.resize):
        raise UserError("--crop and --resize need --size, such as --size 64.", code=2)
    root = _root(data_root)
    of = _latents_of(decoder, images) or _statistics_of(source, size, classes)
    card = ensure(reporter, source, dataset or name_of(source), geometry, root, of)
    for line in _described(card):
        reporter.say(line)
    if card.statistics_sha256:
        reporter.say("Next: bench import a network, and bench sweep.")
        return
    spec = DataSpec(card.name, card.shape, len(card.class_names))
    try:
        if choice := described_choice("edm", spec, None):
            reporter.say(f"edm on {choice}")
    except UserError as error:  # the data set is there all the same
        reporter.say(str(error))
        return
    named = f"{DATA_FOLDER_VARIABLE}={data_root} " if data_root is not None else ""
    reporter.say(f"Next: {named}bench train --method edm --dataset {card.name}")


@data_app.command("list")
def list_command(data_root: DataRootOption = None) -> None:
    """List the prepared data sets and where they came from."""
    from rich.table import Table

    from bench.data.card import prepared_cards

    reporter, _ = options.begin(entry_points=False)
    root = _root(data_root)
    cards = prepared_cards(root)
    if not cards:
        reporter.say(f"No prepared data sets in {root}: bench data prepare SOURCE.")
        return
    table = Table.grid(padding=(0, 2))
    for card in cards:
        table.add_row(card.name, card.summary, f"(from {card.source})")
    reporter.show(table)


@data_app.command("verify")
def verify_command(
    dataset: Annotated[str, typer.Argument(help="Name of a prepared data set.")],
    data_root: DataRootOption = None,
) -> None:
    """Read a whole prepared data set and compare it with its recorded hashes."""
    from bench.data.prepared import prepared_folder, verify

    reporter, _ = options.begin()
    card = verify(prepared_folder(dataset, _root(data_root)))
    reporter.say(f"{dataset}: {card.n:,} images and labels match their recorded hashes.")


def _root(given: Path | None) -> Path:
    from bench.data.card import data_root

    return data_root() if given is None else given.expanduser()


def _latents_of(decoder: str | None, images: str | None) -> LatentsOf | None:
    """The options of latents; UserError if only one is given."""
    from bench.data.decoder import decoder_source
    from bench.data.find import find_dataset
    from bench.data.latents import LatentsOf

    if decoder is None and images is None:
        return None
    if decoder is None or images is None:
        raise UserError(
            "Latents need both: --decoder NAME=FOLDER, which makes images of them, and --images "
            "with the data set of these images.",
            code=2,
        )
    name, _, folder = decoder.partition("=")
    return LatentsOf(find_dataset(images), decoder_source(name, Path(folder) if folder else None))


def _statistics_of(source: Path, size: int | None, classes: int) -> StatisticsOf | None:
    """The options of a statistics file; None for another source."""
    from bench.data.statistics_only import StatisticsOf
    from bench.evaluation.statistics_files import is_statistics, read_statistics

    if not source.is_file() or source.suffix.lower() != ".npz" or not is_statistics(source):
        return None
    found = read_statistics(source)
    if size is None:
        raise UserError(
            f"{source} is a statistics file: name the size of its images with --size, such as "
            "--size 256.",
            code=2,
        )
    extractor = found.card.extractor if found.card is not None else found.extractor
    return StatisticsOf((3, size, size), classes, extractor or "inception")


def _described(card: DataCard) -> list[str]:
    """Sentences about a prepared data set."""
    from bench.data.decode import told_modes, told_oddities

    lines = [f"{card.summary}."]
    if card.reference_from == "hold-out":
        lines.append("It has no test split: its reference was held out of the training images.")
    if card.lossy:
        lines.append("From lossy files: do not compare its numbers with those of original pixels.")
    lines += [f"{line} converted to {card.mode}." for line in told_modes(card.converted)]
    lines += [f"Images: {line}." for line in told_oddities(card.oddities)]
    if card.left_out:
        lines.append(f"Skipped {counted(card.left_out, 'image')} of other splits.")
    if card.ignored:
        lines.append(card.ignored)
    return lines
