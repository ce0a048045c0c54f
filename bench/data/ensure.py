"""Prepare a source of images once, by one process, and check it afterwards."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from bench.data.card import (
    CARD,
    DataCard,
    check_data_name,
    data_root,
    name_of,
    prepared_names,
    read_data_card,
)
from bench.data.decode import Geometry
from bench.data.latents import LatentsOf
from bench.data.prepare import prepare, remove_leftovers, source_hash
from bench.data.prepared import read_stamp, update_stamp
from bench.data.statistics_only import StatisticsOf
from bench.system import places
from bench.system.errors import UserError
from bench.system.files import tidy
from bench.system.leases import LEASE, tidy_leases
from bench.system.progress import SILENT, Reporter
from bench.system.sharing import in_turn


def prepare_if_missing(
    reporter: Reporter, source: Path, name: str | None, *, dry_run: bool = False
) -> str:
    """The name of the data set of `source`, which is prepared if needed."""
    wanted, root = name or name_of(source), data_root()
    if dry_run and wanted not in prepared_names(root):
        raise UserError(
            f"{source} is not prepared yet, and --dry-run prepares nothing: bench data prepare "
            f"{source} --dataset {wanted}."
        )
    quiet = os.environ.get("RANK", "0") != "0"  # the first of several processes reports
    ensure(SILENT if quiet else reporter, source, wanted, None, root)
    return wanted


def ensure(
    reporter: Reporter,
    source: Path,
    name: str,
    geometry: Geometry | None,
    root: Path,
    of: LatentsOf | StatisticsOf | None = None,
) -> DataCard:
    """The card of `source` prepared as `name`; prepares it if needed.

    Prints its folder, and whether it was prepared already. Raises UserError if that name was
    prepared from other content, or otherwise than `geometry` and `of` ask for. Of several
    processes, one prepares and the others wait.
    """
    check_data_name(name)
    if not source.exists():
        raise UserError(f"There is no data source {source}.", code=2)
    places.hold(root)
    folder = root / name
    tidy_leases(root)

    def is_done(_: Path) -> bool:
        return (folder / CARD).exists()

    def waiting(_: Path, holder: str) -> None:
        reporter.say(f"{name!r} is being prepared by {holder}: waiting for it.")

    for _, done in in_turn([root / f".{name}{LEASE}"], lambda lease: lease, is_done, waiting):
        if not done:
            if folder.exists():
                raise UserError(f"{folder} is not a prepared data set: remove it.")
            remove_leftovers(root, name)
            try:
                prepare(source, name, geometry or Geometry(), root, reporter, of)
            except KeyboardInterrupt:
                again = "Stopped. Nothing was kept. Run the same command to start again."
                raise UserError(again, code=130) from None
            update_stamp(folder, source=_source_marks(source))
            reporter.say(f"Prepared the data set {name!r} in {folder}.")
            return read_data_card(folder)
    tidy(folder)
    card = read_data_card(folder)
    other = f"give the new one another name with --dataset, or remove {folder} first"
    if difference := _difference(card, geometry, of):
        raise UserError(f"The data set {name!r} is already prepared {difference}: {other}.")
    current = _source_marks(source)
    if read_stamp(folder).get("source") != current:
        if source_hash(source, reporter) != (card.source_sha256, card.source_listing):
            raise UserError(
                f"The data set {name!r} was prepared from other content ({card.source}) than "
                f"{source} has: {other}."
            )
        update_stamp(folder, source=current)
    reporter.say(f"The data set {name!r} is already prepared in {folder}.")
    return card


def _difference(
    card: DataCard, geometry: Geometry | None, of: LatentsOf | StatisticsOf | None
) -> str:
    """How a data set was prepared, and what is asked for instead; '' if both are the same."""
    if isinstance(of, StatisticsOf):
        shape, classes, extractor = card.shape, len(card.class_names), card.extractor
        if (shape, classes, extractor) == (of.shape, of.classes, of.extractor):
            return ""
        return (
            f"for {classes} classes of images {shape}, and this command asks for {of.classes} of "
            f"images {of.shape}"
        )
    if isinstance(of, LatentsOf):
        here, there = (card.images_of, card.decoder), (of.images.name, of.decoder.name)
        latents = "from latents of {} for the decoder {}, and this command asks for {} and {}"
        return "" if here == there else latents.format(*(name or "none" for name in here + there))
    if geometry is None:
        return ""
    asked = f"--size {geometry.size} --crop {geometry.crop} --resize {geometry.resize}"
    have = f"--size {card.size} --crop {card.crop} --resize {card.resize}"
    if geometry.size is not None and asked != have:
        how = "without --size" if card.size is None else f"with {have}"
        return f"{how}, and this command asks for {asked}"
    if geometry.channels not in (None, card.shape[0]):
        mode = "grey" if geometry.channels == 1 else "rgb"
        return f"in {card.mode}, and this command asks for --mode {mode}"
    if card.oddities.get("stored" if geometry.orient else "turned"):
        how, option = ("not ", "") if geometry.orient else ("", "no-")
        return (
            f"with images {how}turned as their EXIF orientation says, and this command asks for "
            f"--{option}orient"
        )
    return ""


def _source_marks(source: Path) -> list[Any]:
    """Marks that change with the source, without reading it.

    For a folder, these are the times of the folders in its upper two levels, which change if files
    are added or removed.
    """
    path = source.resolve()
    status = path.stat()
    if path.is_file():
        return [str(path), status.st_size, status.st_mtime_ns]
    digest = hashlib.sha256()
    for folder in sorted([path, *path.glob("*/"), *path.glob("*/*/")]):
        digest.update(f"{folder} {folder.stat().st_mtime_ns}\n".encode("utf-8", "replace"))
    return [str(path), digest.hexdigest()]
