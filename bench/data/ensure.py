"""A source of images as a prepared data set: prepared once, by one process, and then checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.data.card import CARD, DataCard, data_root, name_of, prepared_names, read_data_card
from bench.data.decode import Geometry
from bench.data.names import check_data_name
from bench.data.prepare import prepare, remove_leftovers, source_hash
from bench.data.prepared import read_stamp, update_stamp
from bench.system import places
from bench.system.errors import UserError
from bench.system.files import tidy
from bench.system.leases import LEASE, tidy_leases
from bench.system.progress import SILENT, Reporter
from bench.system.sharing import in_turn


def prepare_if_missing(
    reporter: Reporter, source: Path, name: str | None, *, dry_run: bool = False
) -> str:
    """The name of the data set that `source` is prepared as, after preparing it if needed."""
    wanted, root = name or name_of(source), data_root()
    if dry_run and wanted not in prepared_names(root):
        raise UserError(
            f"{source} is not prepared yet, and --dry-run prepares nothing: bench data prepare "
            f"{source} --dataset {wanted}."
        )
    # One of several processes speaks; the others wait for it.
    quiet = os.environ.get("RANK", "0") != "0"
    ensure(SILENT if quiet else reporter, source, wanted, None, root)
    return wanted


def ensure(
    reporter: Reporter, source: Path, name: str, geometry: Geometry | None, root: Path
) -> DataCard:
    """The card of `source` prepared as `name`; prepares it where it is not.

    What is prepared under that name from other content, or to another size where `geometry` asks
    for one, is a UserError. Processes that ask for the same at once wait for the first.
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

    for lease in in_turn([root / f".{name}{LEASE}"], lambda lease: lease, is_done, waiting):
        if not is_done(lease):
            if folder.exists():
                raise UserError(f"{folder} is in the way and is no prepared data set: remove it.")
            remove_leftovers(root, name)
            try:
                prepare(source, name, geometry or Geometry(), root, reporter)
            except KeyboardInterrupt:
                again = "Stopped. Nothing was kept. Run the same command to start again."
                raise UserError(again, code=130) from None
            update_stamp(folder, source=_source_marks(source))
            return read_data_card(folder)
    tidy(folder)
    card = read_data_card(folder)
    _check_same(folder, card, source, geometry, reporter)
    return card


def _check_same(
    folder: Path, card: DataCard, source: Path, geometry: Geometry | None, reporter: Reporter
) -> None:
    other = f"give this one another name with --dataset, or remove {folder}"
    if geometry is not None and geometry.size is not None:
        have = (card.size, card.crop, card.resize)
        if have != (geometry.size, geometry.crop, geometry.resize):
            how = "at its own size" if card.size is None else " ".join(map(str, have))
            raise UserError(
                f"The data set {card.name!r} is there already, prepared {how}: {other}."
            )
    current = _source_marks(source)
    if read_stamp(folder).get("source") == current:
        return
    if source_hash(source, reporter) != (card.source_sha256, card.source_listing):
        raise UserError(
            f"The data set {card.name!r} was prepared from other content ({card.source}) than "
            f"{source} has: {other}."
        )
    update_stamp(folder, source=current)


def _source_marks(source: Path) -> list[Any]:
    """By what a change of the source is noticed without reading it.

    Of a folder those are the times of the folders in its upper two levels, which change with the
    files that are added and removed in them.
    """
    path = source.resolve()
    status = path.stat()
    if path.is_file():
        return [str(path), status.st_size, status.st_mtime_ns]
    digest = hashlib.sha256()
    for folder in _folders(path, 2):
        digest.update(f"{folder} {Path(folder).stat().st_mtime_ns}\n".encode("utf-8", "replace"))
    return [str(path), digest.hexdigest()]


def _folders(path: Path, levels: int) -> Iterator[str]:
    yield str(path)
    if levels:
        # A class may hold very many files; they are not looked at, only where folders can be.
        with os.scandir(path) as entries:
            below = sorted(e.path for e in entries if e.is_dir())
        for folder in below:
            yield from _folders(Path(folder), levels - 1)
